"""A cross-domain matrix as one HTML page."""

from lupctl.core.ranking.reports.model.matrix import ScoreMatrix
from lupctl.core.ranking.reports.page.single import render


def render_matrix(matrix: ScoreMatrix) -> str:
    """The HTML page of a matrix."""
    return render("matrix.html.j2", {"matrix": matrix})
