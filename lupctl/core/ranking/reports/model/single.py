"""Reports: the scores of one evaluation and everything they depend on, as JSON with sorted keys."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from lupctl.core.choices import CameraUse, NeighbourSearch, Protocol, RerankBase, SameCamera, TestedPersons
from lupctl.core.errors import DataError, FormatError
from lupctl.core.ranking.reports.model.details import Part, ReportDetails
from lupctl.core.ranking.reports.model.published import ReportPublished
from lupctl.core.ranking.reports.model.training import ReportTraining
from lupctl.core.ranking.reports.model.warnings import ReportWarning
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_bytes
from lupctl.core.workspace import output_path

REPORT_SCHEMA: Final = "lupctl.report/1"
REPORT_NAME = "report.json"
HINT = "make it again: lupctl eval --force"


class ReportCounts(Part):
    """Numbers of the images that were ranked.

    `gallery` excludes junk and includes distractors; `queries_absent` counts queries whose person is not in the
    gallery.
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
    """Scores after k-reciprocal re-ranking, with everything they depend on.

    Older reports that do not name the neighbour search used the exact one.
    """

    k1: int
    k2: int
    weight: float = Field(alias="lambda")
    base: RerankBase
    neighbours: NeighbourSearch = "exact"
    scores: ReportScores


class ReportSingleShot(Part):
    """CMC with one gallery image drawn per person, averaged over the draws; `rank1_range` is over single draws.

    `persons` is the number of persons whose queries each draw tests; their images and the distractors are its gallery.
    The protocol does not define mAP: the other scores of the report are those of the whole gallery.
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
    """Nearest images averaged into each query and each gallery image (0: none), and the power of their weights."""

    queries: int
    gallery: int
    alpha: float


class ReportProtocol(Part):
    """The rules by which the scores were computed; those with `shot_` apply to a single gallery shot.

    `shot_persons` says how many of the persons each draw tests: all, a random half, or a given number.
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


class ReportCameraUse(Part):
    """How many images of the features were given which row of the network's table of cameras, and by which rule.

    `own_row` is the row of their own camera, `unknown_row` the one that was learned for unknown cameras, `mean_row` the
    mean of all rows, `no_term` none.
    """

    rule: CameraUse
    own_row: int
    unknown_row: int
    mean_row: int
    no_term: int


class ReportProvenance(Part):
    """The version and command line that made the report, and the record of the features it was made from."""

    version: str
    command: list[str]
    features: dict[str, Any]


class Report(Part):
    """One evaluation.

    `fingerprints` covers the features file and everything the features were made from. `warnings` is null in reports of
    an older lupctl, which looked for none, `training` where the network's checkpoint was not there, `camera_use` for a
    network that takes no cameras, and `published` where nothing is published for the network on this dataset.
    """

    schema_name: Literal["lupctl.report/1"] = Field(default="lupctl.report/1", alias="schema")
    dataset: str
    counts: ReportCounts
    scores: ReportScores
    rerank: ReportRerank | None
    single_shot: ReportSingleShot | None = None
    ci95: ReportInterval
    published: ReportPublished | None = None
    protocol: ReportProtocol
    camera_use: ReportCameraUse | None = None
    fingerprints: dict[str, str]
    provenance: ReportProvenance
    warnings: list[ReportWarning] | None = None
    training: ReportTraining | None = None
    details: ReportDetails | None = None


def dataset_title(report: Report) -> str:
    """The dataset's name, with its version where it has several (MSMT17's V1 and V2 give different scores)."""
    version = report.provenance.features.get("dataset_version")
    return report.dataset if not isinstance(version, str) else f"{report.dataset} {version.upper()}"


def report_title(report: Report) -> str:
    """The run and the dataset, or the dataset alone where the run is not known."""
    dataset = dataset_title(report)
    return dataset if report.training is None else f"{report.training.run} on {dataset}"


def report_payload(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, `schema` included."""
    payload: dict[str, Any] = report.model_dump(mode="json", by_alias=True)
    return payload


def write_report(path: Path, report: Report) -> None:
    """Writes a report completely, or leaves the existing file unchanged; the same report gives the same bytes.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, report_text(report))


def report_text(report: Report) -> str:
    """The report as JSON: sorted keys, one per line, and each row of numbers on its own line."""
    return lay_out(report_payload(report))


def lay_out(payload: dict[str, Any]) -> str:
    """JSON with sorted keys, one per line, and each list of plain values on its own line.

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
    """Path of the report: `out`, a file or a folder; by default next to the features."""
    return features_path.parent / REPORT_NAME if out is None else output_path(out, REPORT_NAME)


def read_report(path: Path) -> Report:
    """Reads a report.

    Raises:
        DataError: there is no such file.
        FormatError: it is not a report of this schema.
    """
    try:
        return Report.model_validate_json(read_bytes(path, LIST_BYTES))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file", hint="lupctl eval") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint="lupctl eval") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise FormatError(
            f"{path}: not a report of schema {REPORT_SCHEMA} ({where}: {first['msg']})", hint=HINT
        ) from error
