"""Reports: the scores of one evaluation and everything that led to them, as JSON with sorted keys."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from lupctl.core.choices import NeighbourSearch, Protocol, RerankBase, SameCamera, TestedPersons
from lupctl.core.errors import DataError, FormatError
from lupctl.core.ranking.reports.model.details import Part, ReportDetails
from lupctl.core.system.disk.atomic import write_text

REPORT_SCHEMA: Final = "lupctl.report/1"
REPORT_NAME = "report.json"
HINT = "make it again: lupctl eval --force"


class ReportCounts(Part):
    """What was ranked.

    `gallery` is without junk and with distractors; `queries_absent` are those whose person no gallery image shows.
    """

    queries: int
    queries_valid: int
    queries_absent: int
    query_persons: int
    gallery: int
    junk: int
    distractors: int


class ReportScores(Part):
    """Fractions; see `lupctl.core.ranking.metrics.scores.Scores`. `cmc` ends at the size of the gallery."""

    map: float
    map_official: float
    minp: float
    cmc: dict[int, float]


class ReportRerank(Part):
    """Scores after k-reciprocal re-ranking, with all they depend on.

    Where an older report does not name the search for neighbours, it was exact.
    """

    k1: int
    k2: int
    weight: float = Field(alias="lambda")
    base: RerankBase
    neighbours: NeighbourSearch = "exact"
    scores: ReportScores


class ReportSingleShot(Part):
    """CMC with one drawn gallery image a person, averaged over the draws; `rank1_range` is over single draws.

    `persons` counts those whose queries each draw asks, and whose images make up its gallery beside the distractors.
    The protocol knows no mAP: the other scores of the report are those of the whole gallery.
    """

    cmc: dict[int, float]
    rank1_range: tuple[float, float]
    persons: int


class ReportInterval(Part):
    """95 % bootstrap intervals over the valid queries, lower and upper end; `rank1` is CMC at 1."""

    map: tuple[float, float]
    rank1: tuple[float, float]
    draws: int
    seed: int


class ReportExpansion(Part):
    """How many nearest images make up each query and each gallery image (0: none), and the power of their weights."""

    queries: int
    gallery: int
    alpha: float


class ReportProtocol(Part):
    """The rules by which the scores were computed; those with `shot_` are of a single gallery shot.

    `shot_persons` says how many of the persons each draw tests: all, a drawn half, or a drawn number.
    """

    name: Protocol
    same_camera: SameCamera
    query: Literal["one image", "mean of a person's images from one camera"] = "one image"
    shot_draws: int = 0
    shot_seed: int = 0
    shot_persons: TestedPersons | int = "all"
    expansion: ReportExpansion | None = None
    junk: Literal["ignored"] = "ignored"
    distractors: Literal["wrong"] = "wrong"
    distance: Literal["cosine"] = "cosine"
    ties: Literal["gallery order"] = "gallery order"
    map: Literal["step, valid queries"] = "step, valid queries"
    map_official: Literal["trapezoid, all queries"] = "trapezoid, all queries"


class ReportProvenance(Part):
    """Who made the report, and the record of the features it was made from."""

    version: str
    command: list[str]
    features: dict[str, Any]


class Report(Part):
    """One evaluation.

    `fingerprints` names the features file and whatever the features were made from.
    """

    schema_name: Literal["lupctl.report/1"] = Field(default="lupctl.report/1", alias="schema")
    dataset: str
    counts: ReportCounts
    scores: ReportScores
    rerank: ReportRerank | None
    single_shot: ReportSingleShot | None = None
    ci95: ReportInterval
    protocol: ReportProtocol
    fingerprints: dict[str, str]
    provenance: ReportProvenance
    details: ReportDetails | None = None


def dataset_title(report: Report) -> str:
    """The dataset's name, with its version where it has several (MSMT17's V1 and V2 give different scores)."""
    version = report.provenance.features.get("dataset_version")
    return report.dataset if not isinstance(version, str) else f"{report.dataset} {version.upper()}"


def report_payload(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, `schema` included."""
    payload: dict[str, Any] = report.model_dump(mode="json", by_alias=True)
    return payload


def write_report(path: Path, report: Report) -> None:
    """Writes a report whole, or leaves what was there; the same report gives the same bytes.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, report_text(report))


def report_text(report: Report) -> str:
    """The report as JSON: sorted keys, one a line, and each row of numbers on a line of its own."""
    return lay_out(report_payload(report))


def lay_out(payload: dict[str, Any]) -> str:
    """JSON with sorted keys, one a line, and each list of plain values on a line of its own.

    >>> print(lay_out({"b": [1, 2], "a": 1}), end="")
    {
      "a": 1,
      "b": [1, 2]
    }
    """
    return _lay_out(payload, "") + "\n"


def _lay_out(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{deeper}{json.dumps(key)}: {_lay_out(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
        return "[\n" + ",\n".join(deeper + _lay_out(entry, deeper) for entry in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def report_path(features_path: Path, out: Path | None) -> Path:
    """Where the report goes: `out`, a file or a folder that exists; else beside the features."""
    if out is None:
        return features_path.parent / REPORT_NAME
    return out / REPORT_NAME if out.is_dir() else out


def read_report(path: Path) -> Report:
    """Reads a report.

    Raises:
        DataError: there is no such file.
        FormatError: it is no report of this schema.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file", hint="lupctl eval") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise FormatError(
            f"{path}: no report of schema {REPORT_SCHEMA} ({where}: {first['msg']})", hint=HINT
        ) from error
