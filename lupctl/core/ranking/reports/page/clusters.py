"""How the clusters of a run formed as one HTML page: curves, sizes, and images of a few clusters over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from lupctl.core.ranking.reports.page.charts import EpochCurve, draw_epochs, draw_sizes
from lupctl.core.ranking.reports.page.single import render

# By row of the metrics: what a curve is called, and by how much its numbers are multiplied.
CURVES: Final[Mapping[str, tuple[str, float]]] = {
    "clusters": ("clusters", 1),
    "noise": ("images in no cluster, %", 100),
    "silhouette": ("silhouette", 1),
    "stability": ("stability", 1),
    "cameras": ("cameras of a cluster", 1),
    "purity": ("purity, %", 100),
}
# Those that share a chart.
CHARTS: Final = (("clusters",), ("noise",), ("silhouette", "stability"), ("cameras",), ("purity",))
Row = Mapping[str, float]


@dataclass(frozen=True)
class ClusterImage:
    """One training image of the sheet.

    Args:
        name: path relative to the dataset's root.
        caption: the camera, and whom it shows where that is known.
        picture: a data URI; None if it cannot be decoded.
    """

    name: str
    caption: str
    picture: str | None


@dataclass(frozen=True)
class Group:
    """Images that were in one cluster at an earlier epoch.

    Args:
        size: all images of that cluster; None for images that were in none.
        shared: how many of these are in the cluster that is shown.
        images: some of them, by their number in the sheet.
        others: some of the cluster's images that have left it since.
    """

    size: int | None
    shared: int
    images: tuple[int, ...]
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Moment:
    """Where some images were at an epoch.

    Args:
        epoch: counted from 1.
        clusters: how many clusters had any of them.
        alone: how many of them were in none.
        groups: those from which images are shown.
    """

    epoch: int
    clusters: int
    alone: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Story:
    """A cluster of the last epoch, and where its images were before.

    Args:
        why: it was picked.
        size: its images.
        cameras: known ones among them.
        sureness: mean silhouette of its images.
        moments: the earlier epochs, the first one first, and the last one.
    """

    why: str
    size: int
    cameras: int
    sureness: float
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class ClusterSheet:
    """What a page of clusters shows.

    Args:
        run, datasets: names.
        num_images: that are clustered.
        queries: of the datasets; 0 means that nothing scores the network, but for tracklets.
        has_tracklets: whether the rows have scores on those of the images.
        epoch: the last one with clusters, counted from 1.
        epochs: of the run.
        eps: the largest distance of neighbours.
        rows: of the metrics, one for each epoch so far, in order.
        scores: epochs, counted from 1, with the mAP found after them.
        sizes: (C) of the last epoch's clusters.
        stories: of some of them.
        alone: images that are in none.
        images: by number.
    """

    run: str
    datasets: Sequence[str]
    num_images: int
    queries: int
    has_tracklets: bool
    epoch: int
    epochs: int
    eps: float
    rows: Sequence[Row]
    scores: Mapping[int, float]
    sizes: Sequence[int]
    stories: Sequence[Story]
    alone: Moment
    images: Sequence[ClusterImage]


def render_clusters(sheet: ClusterSheet) -> str:
    """The HTML page of a run's clusters; a picture that is shown several times is in it once."""
    charts = [draw_epochs(curves) for names in CHARTS if (curves := _curves(sheet.rows, names))]
    if sheet.scores:
        scored = EpochCurve("mAP on the test set, %", list(sheet.scores), [100 * one for one in sheet.scores.values()])
        charts.append(draw_epochs([scored]))
    return render(
        "clusters.html.j2",
        {
            "sheet": sheet,
            "last": sheet.rows[-1],
            "charts": [Markup(svg) for svg in charts],
            "sizes": Markup(draw_sizes(sheet.sizes)),
            "knows_persons": "purity" in sheet.rows[-1],
        },
    )


def _curves(rows: Sequence[Row], names: Sequence[str]) -> list[EpochCurve]:
    """The curves of one chart, of the numbers that there are."""
    found = []
    for name in names:
        title, times = CURVES[name]
        points = [(int(row["epoch"]) + 1, times * row[name]) for row in rows if name in row]
        if points:
            found.append(EpochCurve(title, *map(list, zip(*points, strict=True))))
    return found
