"""Scores of networks against their speed, as a chart and a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.ticker import NullLocator, ScalarFormatter

from lupctl.core.ranking.reports.model.matrix import ScoreMatrix
from lupctl.core.ranking.reports.model.speed import BenchRun
from lupctl.core.ranking.reports.page.charts import FIRST, INK, SECOND, STYLE, as_svg, open_chart

MARKERS = "os^Dv"
# Names beside points stay short enough for the chart.
MOST_LETTERS = 24


@dataclass(frozen=True)
class SpeedPoint:
    """A network on a test set.

    Args:
        name: of the network.
        dataset: of the test set.
        milliseconds: of a pass.
        score: mAP as a fraction.
    """

    name: str
    dataset: str
    milliseconds: float
    score: float


def pick_batch(matrix: ScoreMatrix) -> int | None:
    """The number of images that most networks were timed with, of several the smallest; None if none was timed."""
    counts: dict[int, int] = {}
    for run in matrix.runs:
        for batch in {speed.batch for speed in run.speeds}:
            counts[batch] = counts.get(batch, 0) + 1
    return min(counts, key=lambda batch: (-counts[batch], batch), default=None)


def find_points(matrix: ScoreMatrix, batch: int) -> list[SpeedPoint]:
    """Each timed network on each test set, in the backend that runs it fastest."""
    points = []
    for run in matrix.runs:
        fastest = min((speed for speed in run.speeds if speed.batch == batch), key=_milliseconds, default=None)
        if fastest is not None:
            points += [SpeedPoint(run.name, cell.dataset, fastest.median_ms, cell.scores.map) for cell in run.cells]
    return points


def draw_speed(points: Sequence[SpeedPoint], batch: int) -> str:
    """mAP against milliseconds of a pass, on a logarithmic axis; a marker for each test set.

    Args:
        points: at least one.
        batch: images of a pass.
    """
    datasets = list(dict.fromkeys(point.dataset for point in points))
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart()
        for number, dataset in enumerate(datasets):
            own = [point for point in points if point.dataset == dataset]
            axes.plot(
                [point.milliseconds for point in own],
                [100 * point.score for point in own],
                linestyle="none",
                marker=MARKERS[number // 2 % len(MARKERS)],
                color=(FIRST, SECOND)[number % 2],
                label=dataset,
            )
        # Named once, at its highest point.
        for name in dict.fromkeys(point.name for point in points):
            top = max((point for point in points if point.name == name), key=lambda point: point.score)
            short = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
            axes.annotate(
                short.replace("$", r"\$"), (top.milliseconds, 100 * top.score), xytext=(0, 7),
                textcoords="offset points", ha="center", color=INK, fontsize=9,
            )  # fmt: skip
        _lay_out(axes, [point.milliseconds for point in points])
        axes.set(xlabel=f"milliseconds of a pass over {batch} image{'' if batch == 1 else 's'}", ylabel="mAP, %")
        axes.margins(y=0.25)
        axes.set_ylim(top=min(105.0, axes.get_ylim()[1]))
        figure.legend(loc="outside upper center", ncols=3)
        return as_svg(figure, "mAP against milliseconds")


def _lay_out(axes: matplotlib.axes.Axes, milliseconds: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, wide enough for the names at its ends."""
    axes.set_xscale("log")
    lowest, highest = min(milliseconds) / 3, max(milliseconds) * 3
    axes.set_xlim(lowest, highest)
    steps = [base * 10**power for power in range(-4, 8) for base in (1, 2, 5)]
    axes.set_xticks([step for step in steps if lowest <= step <= highest])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _milliseconds(speed: BenchRun) -> float:
    return speed.median_ms
