"""`lupctl eval --all`: runs on every test set of the workspace."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.cli.retrieval.tables import describe_warning
from lupctl.core.flows.everywhere import score_everywhere
from lupctl.core.resolve.networks import find_networks, find_test_sets, matrix_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.matrix import MatrixCell, ScoreMatrix
    from lupctl.core.stages.evaluate import EvaluationJob


def run_everywhere(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Scores runs on every test set of the workspace, or prints what would be scored.

    Raises:
        UsageError: the matrix exists.
        DataError: there is no run or no test set, or one cannot be scored.
    """
    networks = find_networks(space, names, progress)
    tests = find_test_sets(space, rules, progress)
    out = matrix_path(space, list(networks), rules.out)
    if dry_run:
        plan = {"runs": list(networks), "datasets": list(tests), "report": str(out)}
        print_plan("lupctl.eval-all-plan/1", "would evaluate", plan, json=json)
        return
    show_matrix(score_everywhere(space, networks, tests, out, rules, devices, progress), out, json=json)


def show_matrix(matrix: "ScoreMatrix", path: Path, *, json: bool) -> None:
    """Prints a matrix on stdout."""
    from lupctl.core.ranking.reports.model.matrix import matrix_text, matrix_warnings

    if json:
        print(matrix_text(matrix), end="")
        return
    rows: list[list[str]] = []
    for run in matrix.runs:
        rows.append([run.name, *map(_describe, run.cells)])
        if all(cell.rerank for cell in run.cells):
            again = [(cell.rerank.scores.map, cell.rerank.scores.cmc[1]) for cell in run.cells if cell.rerank]
            rows.append([f"{run.name}, re-ranked", *(f"{100 * mean:.2f} / {100 * first:.2f}" for mean, first in again)])
    print_table("mAP / rank-1, %", ["run", *(one.name for one in matrix.datasets)], rows)
    speeds = [(run.name, speed) for run in matrix.runs for speed in run.speeds]
    if speeds:
        timed = [
            (name, one.backend, one.batch, f"{one.median_ms:,.1f}", f"{one.images_per_s:,.1f}") for name, one in speeds
        ]
        print_table("as lupctl model bench measured", ["run", "backend", "batch", "ms", "images/s"], timed)
    cells = [cell for run in matrix.runs for cell in run.cells]
    if any(cell.trained_on for cell in cells):
        print("* trained on this dataset's training images")
    if any(cell.is_leak for cell in cells):
        print("! trained on images, or persons, that it is tested on: scores are too high")
    for one in matrix.datasets:
        if one.protocol != matrix.protocol.name:
            print(f"{one.name}: protocol {one.protocol}, the others {matrix.protocol.name}")
    for name, warning in matrix_warnings(matrix):
        print(describe_warning(warning, run=name))
    for written in (path, path.with_suffix(".html")):
        print(f"report: {written}")


def _describe(cell: "MatrixCell") -> str:
    marks = f"{' *' if cell.trained_on else ''}{' !' if cell.is_leak else ''}"
    return f"{100 * cell.scores.map:.2f} / {100 * cell.scores.cmc[1]:.2f}{marks}"
