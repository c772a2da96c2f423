"""A cross-domain matrix as one HTML page."""

from markupsafe import Markup

from lupctl.core.ranking.reports.model.matrix import ScoreMatrix, matrix_warnings
from lupctl.core.ranking.reports.model.warnings import LEAKS
from lupctl.core.ranking.reports.page.single import render
from lupctl.core.ranking.reports.page.speed import draw_speed, find_points, pick_batch
from lupctl.core.system.examples import count_things


def render_matrix(matrix: ScoreMatrix) -> str:
    """The HTML page of a matrix."""
    title = f"{count_things(len(matrix.runs), 'network')} on {count_things(len(matrix.datasets), 'test set')}"
    is_leaking = any(cell.is_leak for run in matrix.runs for cell in run.cells)
    batch = pick_batch(matrix)
    chart = None if batch is None else Markup(draw_speed(find_points(matrix, batch), batch))
    shown = {"chart": chart, "warnings": matrix_warnings(matrix), "leaks": LEAKS, "any_leak": is_leaking}
    return render("matrix.html.j2", {"matrix": matrix, "title": title, **shown})
