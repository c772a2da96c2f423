"""A cross-domain matrix as one HTML page."""

from lupctl.core.ranking.reports.model.matrix import ScoreMatrix, matrix_warnings
from lupctl.core.ranking.reports.model.warnings import LEAKS
from lupctl.core.ranking.reports.page.single import render


def render_matrix(matrix: ScoreMatrix) -> str:
    """The HTML page of a matrix."""
    is_leaking = any(cell.is_leak for run in matrix.runs for cell in run.cells)
    values = {"matrix": matrix, "warnings": matrix_warnings(matrix), "leaks": LEAKS, "any_leak": is_leaking}
    return render("matrix.html.j2", values)
