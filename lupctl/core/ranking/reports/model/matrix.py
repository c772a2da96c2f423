"""Cross-domain matrices: several networks on several test sets, as JSON with sorted keys."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import (
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportRerank,
    ReportScores,
    lay_out,
)
from lupctl.core.ranking.reports.model.warnings import KINDS, LEAKS, ReportWarning, WarningKind
from lupctl.core.system.disk.atomic import write_text

CROSS_SCHEMA: Final = "lupctl.eval-all/1"


class MatrixCell(Part):
    """One network on one test set.

    `trained_on` is whether the network was fine-tuned on training images of this test set's pack, by comparing the
    images, or the names of the datasets where a pack is not there. `warnings` are as in a report; test images or
    persons that the network was trained on are among them.
    """

    dataset: str
    trained_on: bool
    scores: ReportScores
    ci95: ReportInterval
    rerank: ReportRerank | None
    warnings: list[ReportWarning]
    fingerprints: dict[str, str]

    @property
    def is_leak(self) -> bool:
        """Whether test images or persons were trained on with their labels."""
        return any(warning.kind in LEAKS for warning in self.warnings)


class MatrixRun(Part):
    """A row of the matrix: its name, the checkpoint, and one cell per test set."""

    name: str
    checkpoint: str
    cells: list[MatrixCell]


class MatrixSet(Part):
    """A column of the matrix."""

    name: str
    counts: ReportCounts


class ScoreMatrix(Part):
    """Every network on every test set, under one protocol."""

    schema_name: Literal["lupctl.eval-all/1"] = Field(default="lupctl.eval-all/1", alias="schema")
    protocol: ReportProtocol
    datasets: list[MatrixSet]
    runs: list[MatrixRun]


# Warnings about a network on a test set, and about a test set whose text does not name it.
OF_THE_PAIR: Final[tuple[WarningKind, ...]] = (*LEAKS, "pretraining", "not checked")
OF_THE_SET: Final[tuple[WarningKind, ...]] = ("queries", "reranking")


def matrix_warnings(matrix: ScoreMatrix) -> list[tuple[str, ReportWarning]]:
    """The warnings of all cells, each once, with the run or the test set it is about where its text does not say."""
    unique: dict[tuple[str, ReportWarning], None] = {}
    for run in matrix.runs:
        for cell in run.cells:
            for warning in cell.warnings:
                about = run.name if warning.kind in OF_THE_PAIR else cell.dataset if warning.kind in OF_THE_SET else ""
                unique[about, warning] = None
    return sorted(unique, key=lambda found: (KINDS.index(found[1].kind), found[0], found[1].text))


def matrix_text(matrix: ScoreMatrix) -> str:
    """The matrix as JSON, in the layout of reports."""
    return lay_out(matrix.model_dump(mode="json", by_alias=True))


def write_matrix_file(path: Path, matrix: ScoreMatrix) -> None:
    """Writes a matrix completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, matrix_text(matrix))
