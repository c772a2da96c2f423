"""Sweeps: one network scored at several values of a setting, as JSON with sorted keys."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from lupctl.core.choices import RerankBase, SettingKey
from lupctl.core.errors import DataError, FormatError
from lupctl.core.ranking.reports.model.comparison import Measure
from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import ReportInterval, ReportProtocol, ReportScores, lay_out
from lupctl.core.ranking.reports.model.warnings import ReportWarning
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_bytes

SWEEP_SCHEMA: Final = "lupctl.sweep/1"
KEY_NAMES: Final[dict[SettingKey, str]] = {
    "semantic_weight": "semantic weight",
    "size": "size of images, height x width",
    "position": "resize of the position embedding",
    "interpolation": "filter of the resize of images",
}
Value = float | str


class SweepRerank(Part):
    """The settings of re-ranking, the same for all values."""

    k1: int
    k2: int
    weight: float = Field(alias="lambda")
    base: RerankBase


class SweepDifference(Part):
    """How much better a value is than the network's own, over the same queries; `ci95` as in a comparison of runs."""

    measure: Measure
    reranked: bool
    value: float
    ci95: tuple[float, float]
    exceeds: bool


class SweepPoint(Part):
    """One value, everything that is set with it, its scores, and how they differ from those of the own value.

    `differences` is empty for the own value. `fingerprints` are those of its report.
    """

    value: Value
    is_own: bool
    set: dict[str, Value]
    scores: ReportScores
    ci95: ReportInterval
    reranked: ReportScores | None
    differences: list[SweepDifference]
    features: str
    fingerprints: dict[str, str]

    def difference(self, measure: Measure, *, reranked: bool = False) -> SweepDifference | None:
        """One of the differences; None for the own value, or where nothing was re-ranked."""
        found = [one for one in self.differences if (one.measure, one.reranked) == (measure, reranked)]
        return found[0] if found else None


class Sweep(Part):
    """A network at several values of one setting, which needs no training again.

    `own` is the value that it was trained or published with, `base` what else was set, for all values alike. `best` is
    the value with the highest mAP without re-ranking, `best_reranked` with it: both are chosen on the queries that they
    are scored on.
    """

    schema_name: Literal["lupctl.sweep/1"] = Field(default="lupctl.sweep/1", alias="schema")
    network: str
    dataset: str
    key: SettingKey
    own: Value
    base: dict[str, Value]
    best: Value
    best_reranked: Value | None
    chosen_on: Literal["test queries"] = "test queries"
    queries: int
    queries_valid: int
    draws: int
    seed: int
    protocol: ReportProtocol
    rerank: SweepRerank | None
    points: list[SweepPoint]
    warnings: list[ReportWarning]


def sweep_text(sweep: Sweep) -> str:
    """The sweep as JSON, in the layout of reports."""
    return lay_out(sweep.model_dump(mode="json", by_alias=True))


def write_sweep_file(path: Path, sweep: Sweep) -> None:
    """Writes a sweep completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, sweep_text(sweep))


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep.

    Raises:
        DataError: there is no such file.
        FormatError: it is not a sweep of this schema.
    """
    hint = "make it again: the same command with --force"
    try:
        return Sweep.model_validate_json(read_bytes(path, LIST_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=hint) from error
    except ValidationError as error:
        raise FormatError(f"{path}: not a sweep of schema {SWEEP_SCHEMA}", hint=hint) from error
