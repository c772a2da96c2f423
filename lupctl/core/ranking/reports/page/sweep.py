"""A sweep as one HTML page."""

from markupsafe import Markup

from lupctl.core.formats.weights.settings import show_value
from lupctl.core.ranking.reports.model.sweep import KEY_NAMES, Sweep
from lupctl.core.ranking.reports.model.warnings import LEAKS
from lupctl.core.ranking.reports.page.charts import SweepCurve, draw_sweep
from lupctl.core.ranking.reports.page.single import render


def render_sweep(sweep: Sweep) -> str:
    """The HTML page of a sweep: one table, and one curve of how mAP differs from that of the own value."""
    curves = [SweepCurve(name, *_differences(sweep, reranked=again)) for name, again in _kinds(sweep).items()]
    values = [point.value for point in sweep.points]
    own = sweep.points[[point.is_own for point in sweep.points].index(True)]
    chart = draw_sweep(values, curves, key=KEY_NAMES[sweep.key], own=show_value(own.value))
    shown = {
        "sweep": sweep,
        "own": own,
        "key": KEY_NAMES[sweep.key],
        "show": show_value,
        "chart": Markup(chart),
        "warnings": [("", warning) for warning in sweep.warnings],
        "leaks": LEAKS,
    }
    return render("sweep.html.j2", shown)


def _kinds(sweep: Sweep) -> dict[str, bool]:
    return {"as dumped": False} | ({} if sweep.rerank is None else {"re-ranked": True})


def _differences(sweep: Sweep, *, reranked: bool) -> tuple[list[float], list[tuple[float, float]]]:
    """The differences of mAP and their intervals; 0 for the own value."""
    found = [point.difference("map", reranked=reranked) for point in sweep.points]
    return [0.0 if one is None else one.value for one in found], [
        (0.0, 0.0) if one is None else one.ci95 for one in found
    ]
