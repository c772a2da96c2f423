"""Comparisons: several reports of the same queries side by side, as JSON with sorted keys."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import ReportInterval, ReportScores, lay_out
from lupctl.core.ranking.reports.model.warnings import ReportWarning, gather_warnings
from lupctl.core.system.disk.atomic import write_text

COMPARISON_SCHEMA: Final = "lupctl.compare/1"
Measure = Literal["map", "rank1"]
MEASURE_NAMES: Final[dict[Measure, str]] = {"map": "mAP", "rank1": "rank-1"}


class ComparedRun(Part):
    """One of the reports: its name, its main scores, its warnings, and the fingerprints that identify it."""

    name: str
    scores: ReportScores
    ci95: ReportInterval
    reranked: ReportScores | None
    warnings: list[ReportWarning]
    fingerprints: dict[str, str]


class Difference(Part):
    """The difference between the scores of `run` and `other`, positive if `run` is better, over the same queries.

    `ci95` is the bootstrap interval of the mean difference, both runs drawn together; `exceeds` is true if it excludes
    0. `reranked` says which of the two scores of each run were compared.
    """

    run: str
    other: str
    measure: Measure
    reranked: bool
    value: float
    ci95: tuple[float, float]
    exceeds: bool


class SeedGroup(Part):
    """Runs whose names differ only in their seed, as `finetune` names them.

    Means, and standard deviations between the runs (n - 1), as fractions.
    """

    name: str
    runs: list[str]
    map_mean: float
    map_sd: float
    rank1_mean: float
    rank1_sd: float


class Comparison(Part):
    """Several evaluations of the same queries by the same rule."""

    schema_name: Literal["lupctl.compare/1"] = Field(default="lupctl.compare/1", alias="schema")
    dataset: str
    queries: int
    queries_valid: int
    draws: int
    seed: int
    runs: list[ComparedRun]
    seeds: list[SeedGroup]
    differences: list[Difference]

    @property
    def tags(self) -> dict[str, str]:
        """A short tag for each run's name: A, B, …, and numbers from the 27th on."""
        return {run.name: chr(ord("A") + at) if at < 26 else str(at + 1) for at, run in enumerate(self.runs)}


def comparison_warnings(comparison: Comparison) -> list[tuple[str, ReportWarning]]:
    """The warnings of all runs; see `gather_warnings`."""
    return gather_warnings((run.name, comparison.dataset, run.warnings) for run in comparison.runs)


def comparison_text(comparison: Comparison) -> str:
    """The comparison as JSON, in the layout of reports."""
    return lay_out(comparison.model_dump(mode="json", by_alias=True))


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Writes a comparison completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, comparison_text(comparison))
