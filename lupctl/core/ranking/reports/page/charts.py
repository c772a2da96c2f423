"""Charts as SVG that take their colours from the page around them."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lupctl.core.ranking.reports.model.details import ReportCurve, ReportPairs
from lupctl.core.ranking.reports.model.training import ReportTrainingCurve

# Placeholder colours for matplotlib; the page's style sheet defines the real ones, for light and dark mode.
INK, FIRST, SECOND, GRID = "#000001", "#000002", "#000003", "#000004"
VARIABLES = {INK: "var(--ink)", FIRST: "var(--first)", SECOND: "var(--second)", GRID: "var(--grid)"}
# Typed loosely: matplotlib's type lists every key, and the keys differ between its releases.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lupctl",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
SIZE_INCHES = (5.4, 3.1)
MOST_BARS = 40


@dataclass(frozen=True)
class SweepCurve:
    """Differences of one score from that of a network's own value, as fractions.

    Args:
        name: of the score.
        values: one of each value of the sweep.
        ends: of their intervals.
    """

    name: str
    values: Sequence[float]
    ends: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class EpochCurve:
    """A number over the epochs of a run.

    Args:
        name: of the number.
        epochs: counted from 1.
        values: one of each.
    """

    name: str
    epochs: Sequence[int]
    values: Sequence[float]


def draw_cmc(curve: ReportCurve) -> str:
    """CMC curve: share of queries with a right answer among the first k, against k."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart()
        for values, name, colour in ((curve.plain, "as dumped", FIRST), (curve.reranked, "re-ranked", SECOND)):
            if values is not None:
                ranks = np.arange(1, len(values) + 1)
                axes.plot(ranks, 100 * np.array(values), color=colour, label=name, linewidth=2)
        axes.set(xlabel="rank", ylabel="queries, %")
        axes.set_xlim(1, max(2, len(curve.plain)))
        axes.set_ylim(top=100.5)
        if curve.reranked is not None:
            axes.legend(loc="lower right")
        return as_svg(figure, "CMC curve")


def draw_distances(pairs: ReportPairs) -> str:
    """Histograms of the distances of same-person and different-person pairs, each of area 1, with the threshold."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart()
        last = 0
        for counts, name, colour in (
            (pairs.different_counts, "different persons", SECOND),
            (pairs.same_counts, "same person", FIRST),
        ):
            density = np.array(counts) / max(1, sum(counts)) / pairs.bin
            edges = np.arange(len(counts) + 1) * pairs.bin
            axes.stairs(density, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(density, edges, color=colour, label=name, linewidth=1.4)
            last = max(last, *np.flatnonzero(counts).tolist(), 0)
        if pairs.threshold is not None:
            chosen = pairs.threshold.chosen.threshold
            axes.axvline(chosen, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {chosen:.3f}")
        axes.set(xlabel="distance, 1 - cos", ylabel="density")
        axes.set_xlim(0, (last + 3) * pairs.bin)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=3)
        return as_svg(figure, "Distances of pairs")


def draw_roc(pairs: ReportPairs) -> str:
    """ROC curve: share of same-person pairs found, against the false match rate on a logarithmic axis."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart()
        axes.semilogx(pairs.roc_fpr, 100 * np.array(pairs.roc_tpr), color=FIRST, linewidth=2)
        axes.set(xlabel="false match rate (different persons taken for one)", ylabel="same-person pairs found, %")
        axes.set_ylim(0, 100.5)
        axes.minorticks_off()
        return as_svg(figure, "ROC curve")


def draw_training(curve: ReportTrainingCurve, *, steps_per_epoch: float | None) -> str:
    """A run's loss with the mAP found along the way, and its learning rate below.

    Args:
        curve: at least one point.
        steps_per_epoch: the axis is in epochs; None leaves it in steps.
    """
    unit = steps_per_epoch or 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE_INCHES[0], SIZE_INCHES[1] * 1.25), layout="constrained")
        figure.patch.set_alpha(0)
        top, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        marker = "o" if len(curve.step) == 1 else None
        at = np.array(curve.step) / unit
        drawn = top.plot(at, curve.loss, color=FIRST, linewidth=2, marker=marker, label="loss")
        below.plot(at, curve.rate, color=INK, linewidth=1.4, marker=marker)
        top.set(ylabel="loss")
        below.set(ylabel="rate", xlabel="step" if steps_per_epoch is None else "epoch")
        below.set_ylim(bottom=0)
        below.set_xlim(left=0)
        if curve.scored_at:
            right = top.twinx()
            right.grid(visible=False)
            right.spines["right"].set_visible(True)
            points, found = np.array(curve.scored_at) / unit, 100 * np.array(curve.map)
            drawn += right.plot(points, found, "o-", color=SECOND, linewidth=1.4, markersize=4, label="mAP, %")
            right.set(ylabel="mAP, %")
            right.set_ylim(bottom=0)
            figure.legend(handles=drawn, loc="outside upper center", ncols=2)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        return as_svg(figure, "Training curve")


def draw_intervals(names: Sequence[str], centres: Sequence[float], ends: Sequence[tuple[float, float]]) -> str:
    """mAP of each run in percent with its interval, one line per run."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart(height=0.9 + 0.3 * len(names))
        for row, (centre, (lower, upper)) in enumerate(zip(centres, ends, strict=True)):
            axes.plot([100 * lower, 100 * upper], [row, row], color=SECOND, linewidth=3, solid_capstyle="round")
            axes.plot([100 * centre], [row], "o", color=FIRST)
        axes.set_yticks(range(len(names)), list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel="mAP with its 95 % interval, %")
        return as_svg(figure, "mAP of each run")


def draw_sweep(values: Sequence[float | str], curves: Sequence[SweepCurve], *, key: str, own: str) -> str:
    """Differences of mAP at each value in points, with their intervals: as bands along numbers, as bars for names.

    Args:
        values: of the setting.
        curves: at most two.
        key: the setting in words.
        own: the value that differences are from.
    """
    numbers = [value for value in values if not isinstance(value, str)]
    is_numeric = len(numbers) == len(values)
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart()
        axes.axhline(0, color=INK, linestyle="--", linewidth=1.2, label=f"own value, {own}")
        for shift, (curve, colour) in enumerate(zip(curves, (FIRST, SECOND), strict=False)):
            found, (lower, upper) = 100 * np.array(curve.values), 100 * np.array(curve.ends).T
            if is_numeric:
                axes.fill_between(numbers, lower, upper, color=colour, alpha=0.22, linewidth=0)
                axes.plot(numbers, found, "o-", color=colour, linewidth=2, markersize=4, label=curve.name)
            else:
                # Side by side, so that the bars of two scores do not cover each other.
                at = np.arange(len(values)) + 0.12 * shift
                axes.vlines(at, lower, upper, color=colour, linewidth=3, alpha=0.45)
                axes.plot(at, found, "o", color=colour, label=curve.name)
        if not is_numeric:
            axes.set_xticks(range(len(values)), [str(value) for value in values])
            axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set(xlabel=key, ylabel="mAP, points from the own value")
        figure.legend(loc="outside upper center", ncols=3)
        return as_svg(figure, f"mAP by {key}")


def draw_epochs(curves: Sequence[EpochCurve]) -> str:
    """One or two numbers over the epochs of a run."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart(height=2.3)
        for curve, colour in zip(curves, (FIRST, SECOND), strict=False):
            axes.plot(curve.epochs, curve.values, "o-", color=colour, linewidth=2, markersize=3, label=curve.name)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)  # also of a single epoch
        axes.set(xlabel="epoch", ylabel=curves[0].name if len(curves) == 1 else None)
        if len(curves) > 1:
            figure.legend(loc="outside upper center", ncols=2)
        return as_svg(figure, " and ".join(curve.name for curve in curves))


def draw_sizes(sizes: Sequence[int]) -> str:
    """How many clusters have how many images, in at most 40 bars."""
    with matplotlib.rc_context(STYLE):
        figure, axes = open_chart(height=2.3)
        first, last = min(sizes), max(sizes)
        width = max(1, -(-(last - first + 1) // MOST_BARS))
        counts, edges = np.histogram(sizes, bins=np.arange(first, last + width + 1, width) - 0.5)
        axes.stairs(counts, edges, fill=True, color=FIRST)
        axes.locator_params(integer=True)
        axes.set(xlabel="images in a cluster", ylabel="clusters")
        return as_svg(figure, "Sizes of the clusters")


def open_chart(*, height: float = SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, without a background."""
    figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    return figure, axes


def as_svg(figure: Figure, title: str) -> str:
    """A figure as SVG in the colours and the font of the page; the title is for screen readers."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Group ids repeat from chart to chart; only ids that something refers to must stay.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    # Use the page's font instead of matplotlib's list.
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
