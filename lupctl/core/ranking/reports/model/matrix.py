"""Cross-domain matrices: several networks on several test sets, as JSON with sorted keys."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from lupctl.core.choices import Protocol
from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import (
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportRerank,
    ReportScores,
    lay_out,
)
from lupctl.core.ranking.reports.model.speed import BenchRun
from lupctl.core.ranking.reports.model.warnings import LEAKS, ReportWarning, gather_warnings
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
    """A row of the matrix: its name, the checkpoint, and one cell per test set.

    `speeds` are those that `model bench` measured of this very network, where it did.
    """

    name: str
    checkpoint: str
    cells: list[MatrixCell]
    speeds: list[BenchRun] = Field(default_factory=list)


class MatrixSet(Part):
    """A column of the matrix; without a protocol on the command line, the split of its images chooses it."""

    name: str
    protocol: Protocol = "market1501"
    counts: ReportCounts


class ScoreMatrix(Part):
    """Every network on every test set; `protocol` has the rules of the first one."""

    schema_name: Literal["lupctl.eval-all/1"] = Field(default="lupctl.eval-all/1", alias="schema")
    protocol: ReportProtocol
    datasets: list[MatrixSet]
    runs: list[MatrixRun]


def matrix_warnings(matrix: ScoreMatrix) -> list[tuple[str, ReportWarning]]:
    """The warnings of all cells; see `gather_warnings`."""
    return gather_warnings((run.name, cell.dataset, cell.warnings) for run in matrix.runs for cell in run.cells)


def matrix_text(matrix: ScoreMatrix) -> str:
    """The matrix as JSON, in the layout of reports."""
    return lay_out(matrix.model_dump(mode="json", by_alias=True))


def write_matrix_file(path: Path, matrix: ScoreMatrix) -> None:
    """Writes a matrix completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, matrix_text(matrix))
