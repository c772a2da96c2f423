"""What is known of a site without labels: thresholds and scores on pairs of its tracklets, as JSON."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from lupctl.core.errors import FormatError
from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import HINT, Report, ReportProvenance, lay_out, read_report
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_bytes
from lupctl.core.system.documents import parse_json

SITE_SCHEMA: Final = "lupctl.site/1"


class ReportSiteCounts(Part):
    """What was compared: images in the features, tracklets and those too short to compare, pairs of tracklets that were
    seen together, and pairs of images of one person and of two.
    """

    images: int
    tracklets: int
    short: int
    together: int
    same: int
    different: int


class ReportSitePoint(Part):
    """A threshold on 1 - cos and its rates on all pairs; the intervals are over the tracklets, null if unknown."""

    threshold: float
    threshold_ci95: tuple[float, float] | None
    fpr: float
    tpr: float
    tpr_ci95: tuple[float, float] | None


class ReportSiteAcross(Part):
    """Pairs of tracklets of two cameras that are each other's nearest: assumed, not known, to be one person.

    `found_again` is the share of them that other images of the same tracklets choose, too; `near` the share whose mean
    distance is within the threshold, null without one.
    """

    pairs: int
    found_again: float
    near: float | None


class SiteReport(Part):
    """Scores and thresholds from tracklets alone.

    `assumes` says what has to be true for them to hold, `warnings` what is known to speak against them.

    `scores` and `ci95` have `auc` and `rank1` (see `lupctl.core.ranking.site.scores.SiteScores`), if they are known.
    `at_fpr` is null where there are too few pairs to tell. The histograms are of bins of width `bin`, starting at 0.
    """

    schema_name: Literal["lupctl.site/1"] = Field(default="lupctl.site/1", alias="schema")
    dataset: str
    counts: ReportSiteCounts
    scores: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    rule: Literal["equal error", "false positive rate"]
    wanted_fpr: float | None
    threshold: ReportSitePoint | None
    at_fpr: dict[str, ReportSitePoint | None]
    across: ReportSiteAcross | None
    bin: float
    same_counts: list[int]
    different_counts: list[int]
    draws: int
    seed: int
    assumes: list[str]
    warnings: list[str]
    fingerprints: dict[str, str]
    provenance: ReportProvenance


def site_text(report: SiteReport) -> str:
    """The report as JSON: sorted keys, one per line, and each row of numbers on its own line."""
    return lay_out(report.model_dump(mode="json", by_alias=True))


def write_site(path: Path, report: SiteReport) -> None:
    """Writes a report completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, site_text(report))


def read_either(path: Path) -> Report | SiteReport:
    """Reads a report with thresholds, from labels or from tracklets.

    Raises:
        DataError: there is no such file.
        FormatError: it is neither.
    """
    try:
        value = parse_json(read_bytes(path, LIST_BYTES), is_finite=False)
    except (OSError, ValueError):
        return read_report(path)  # says what is wrong
    if not isinstance(value, dict) or value.get("schema") != SITE_SCHEMA:
        return read_report(path)
    try:
        return SiteReport.model_validate_json(read_bytes(path, LIST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise FormatError(
            f"{path}: not a report of schema {SITE_SCHEMA} ({where}: {first['msg']})", hint=HINT
        ) from error
