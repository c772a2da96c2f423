"""What each known cause changes in the scores of a network, and which closes the gap to published ones."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.published import ReportPublished
from lupctl.core.ranking.reports.model.single import ReportInterval, ReportProtocol, ReportScores, lay_out
from lupctl.core.ranking.reports.model.warnings import ReportWarning
from lupctl.core.system.disk.atomic import write_text

# What is known to move scores between two evaluations of one network; the last is all of the published way at once.
Cause = Literal[
    "size",
    "filter",
    "flip",
    "distance",
    "cameras",
    "precision",
    "resize of positions",
    "semantic weight",
    "version",
    "all of these",
]
Verdict = Literal["explained", "not explained", "no gap", "not compared"]


class TrialDifference(Part):
    """How much better a trial is than the features in question, over the same queries; `ci95` as in a comparison."""

    value: float
    ci95: tuple[float, float]
    exceeds: bool


class Trial(Part):
    """The network evaluated again with one change, from `ours` to `tried`.

    `is_published` says whether that is the published way, as far as it is known. The differences are null where other
    queries were scored (those of MSMT17's two versions are the same). `map_left` and `rank1_left` are what is left to
    the published scores, null where these are not comparable. `command` makes such features, and is null where they
    are the same ones.
    """

    cause: Cause
    ours: str
    tried: str
    is_published: bool
    scores: ReportScores
    ci95: ReportInterval
    map_difference: TrialDifference | None
    rank1_difference: TrialDifference | None
    map_left: float | None
    rank1_left: float | None
    command: str | None


class NotTried(Part):
    """A cause that could not be tried, and why."""

    cause: Cause
    reason: str


class Explanation(Part):
    """One network on one dataset, as it was evaluated, and again with each known cause changed.

    `map_gap` and `rank1_gap` are the published scores less ours. `closed_by` is the cause of the trial that comes
    nearest to the published scores, of those whose paired intervals contain both gaps.
    """

    schema_name: Literal["lupctl.explanation/1"] = Field(default="lupctl.explanation/1", alias="schema")
    network: str
    features: str
    dataset: str
    queries: int
    queries_valid: int
    draws: int
    seed: int
    protocol: ReportProtocol
    scores: ReportScores
    ci95: ReportInterval
    published: ReportPublished | None
    map_gap: float | None
    rank1_gap: float | None
    trials: list[Trial]
    not_tried: list[NotTried]
    verdict: Verdict
    closed_by: Cause | None
    fingerprints: dict[str, str]
    warnings: list[ReportWarning]


def explanation_text(found: Explanation) -> str:
    """The explanation as JSON, in the layout of reports."""
    return lay_out(found.model_dump(mode="json", by_alias=True))


def write_explanation(path: Path, found: Explanation) -> None:
    """Writes an explanation completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, explanation_text(found))
