"""The page of a run's clusters, from their labels at some epochs and the rows of the metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.clustering.tracing import look_back, pick_clusters, spread
from lupctl.core.ranking.reports.page.clusters import ClusterImage, ClusterSheet, Group, Moment, Story, render_clusters
from lupctl.core.ranking.reports.page.images import embed_picture

# Images of a cluster that are followed, and of those that have left it, at an epoch. With five clusters at six epochs a
# page has at most 5 x (8 + 5 x 3) + 8 = 123 different pictures of some 5 KB.
FOLLOWED, LEFT, LONELY = 8, 3, 8


@dataclass(frozen=True)
class ClusteredImages:
    """The images of a training set, for showing.

    Args:
        name: of an image (N).
        camera: (N), -1 for none.
        cameras: what each of these numbers stands for.
        person: (N), negative where nobody is known.
        read: the encoded image of a number; None if it is damaged.
    """

    name: Callable[[int], str]
    camera: NDArray[np.int16]
    cameras: Sequence[int | str]
    person: NDArray[np.int64]
    read: Callable[[int], bytes | None]


@dataclass(frozen=True)
class ClusteredRun:
    """What a page says of the run.

    Args:
        name: of the run.
        datasets: that it trains on.
        queries: that they have.
        epochs: of the whole run.
        eps: the largest distance of neighbours.
        rows: of the metrics.
    """

    name: str
    datasets: Sequence[str]
    queries: int
    epochs: int
    eps: float
    rows: Sequence[Mapping[str, Any]]


class Album:
    """Collects images, each once, and numbers them."""

    def __init__(self) -> None:
        self._number: dict[int, int] = {}

    def numbers(self, images: NDArray[np.int64]) -> tuple[int, ...]:
        """The numbers of (K) images."""
        return tuple(self._number.setdefault(image, len(self._number)) for image in images.tolist())

    def images(self) -> list[int]:
        """All of them, by number."""
        return list(self._number)


def build_cluster_page(
    run: ClusteredRun,
    images: ClusteredImages,
    *,
    labels: Mapping[int, NDArray[np.int64]],
    sureness: NDArray[np.float64],
) -> str:
    """The page.

    Args:
        run: that is shown.
        images: of its training set.
        labels: (N) by epoch, counted from 0, in order; the last ones are those that the others lead to.
        sureness: (C) mean silhouettes of the last ones.
    """
    *earlier, epoch = labels
    now, album = labels[epoch], Album()
    sizes = np.bincount(now[now != NOISE], minlength=len(sureness))
    stories = []
    for why, cluster in pick_clusters(now, sureness, images.camera).items():
        mine = np.flatnonzero(now == cluster)
        # In the order of where they came from, so that those who are followed came from everywhere.
        first = labels[earlier[0]] if earlier else now
        followed = spread(mine[np.argsort(first[mine], kind="stable")], FOLLOWED)
        moments = [_look(labels[one], now, cluster, followed, epoch=one, album=album) for one in earlier]
        whole = Group(len(mine), len(mine), album.numbers(followed))
        cameras = len(np.unique(images.camera[mine][images.camera[mine] >= 0]))
        moments.append(Moment(epoch + 1, clusters=1, alone=0, groups=(whole,)))
        stories.append(Story(why, len(mine), cameras, float(sureness[cluster]), tuple(moments)))
    alone = np.flatnonzero(now == NOISE)
    lonely = (Group(None, len(alone), album.numbers(spread(alone, LONELY))),) if len(alone) else ()
    found = [row for row in run.rows if "clusters" in row and row["epoch"] <= epoch]
    sheet = ClusterSheet(
        run=run.name,
        datasets=run.datasets,
        num_images=len(now),
        queries=run.queries,
        has_tracklets=any(name.startswith("site_") for row in run.rows for name in row),
        epoch=epoch + 1,
        epochs=run.epochs,
        eps=run.eps,
        rows=found,
        scores={row["epoch"] + 1: row["map"] for row in run.rows if _is_first(row, run.datasets[0])},
        sizes=sizes.tolist(),
        stories=stories,
        alone=Moment(epoch + 1, clusters=0, alone=len(alone), groups=lonely),
        images=[_show(images, image) for image in album.images()],
    )
    return render_clusters(sheet)


def _look(
    before: NDArray[np.int64],
    now: NDArray[np.int64],
    cluster: int,
    followed: NDArray[np.int64],
    *,
    epoch: int,
    album: Album,
) -> Moment:
    """Where the images of a cluster were at an epoch, with those that are followed, and some that have left."""
    found = look_back(now, before, cluster)
    groups = []
    for place, (one, shared, size) in enumerate(zip(found.clusters, found.shared, found.sizes, strict=True)):
        own = followed[before[followed] == one]
        left = np.flatnonzero((before == one) & (now != cluster)) if place == 0 else np.empty(0, np.int64)
        if len(own) or len(left):
            others = album.numbers(spread(left, LEFT))
            groups.append(Group(int(size), int(shared), album.numbers(own), others))
    own = followed[before[followed] == NOISE]
    if len(own):
        groups.append(Group(None, found.alone, album.numbers(own)))
    return Moment(epoch + 1, clusters=len(found.clusters), alone=found.alone, groups=tuple(groups))


def _show(images: ClusteredImages, image: int) -> ClusterImage:
    """An image with its picture, its camera, and whom it shows."""
    camera, person, encoded = int(images.camera[image]), int(images.person[image]), images.read(image)
    known = [f"p{person}"] if person >= 0 else []
    known += [f"c{images.cameras[camera]}"] if camera >= 0 else []
    return ClusterImage(images.name(image), " ".join(known), None if encoded is None else embed_picture(encoded))


def _is_first(row: Mapping[str, Any], dataset: str) -> bool:
    """Whether a row has scores on the first dataset, which is the run's own test."""
    return "map" in row and row.get("dataset", dataset) == dataset
