"""Several evaluations side by side as one HTML page."""

from markupsafe import Markup

from lupctl.core.ranking.reports.model.comparison import MEASURE_NAMES, Comparison, comparison_warnings
from lupctl.core.ranking.reports.model.warnings import LEAKS
from lupctl.core.ranking.reports.page.charts import draw_intervals
from lupctl.core.ranking.reports.page.single import render


def render_comparison(comparison: Comparison) -> str:
    """The HTML page of a comparison."""
    runs = comparison.runs
    chart = draw_intervals(
        list(comparison.tags.values()), [run.scores.map for run in runs], [run.ci95.map for run in runs]
    )
    shown = {"warnings": comparison_warnings(comparison), "leaks": LEAKS, "measures": MEASURE_NAMES}
    return render("comparison.html.j2", {"comparison": comparison, "chart": Markup(chart), **shown})
