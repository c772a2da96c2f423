"""Clusters over time: which of them are worth a look, and where their images were before."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.clustering.density import NOISE


@dataclass(frozen=True)
class Before:
    """Where the images of a cluster were at an earlier time.

    Args:
        clusters: those that had any of them, the one with most first; of equals the smaller number.
        shared: images of each of these that are in the later cluster.
        sizes: all images of each of these.
        alone: number of images of the later cluster that were in none.
    """

    clusters: NDArray[np.int64]
    shared: NDArray[np.int64]
    sizes: NDArray[np.int64]
    alone: int


def pick_clusters(
    labels: NDArray[np.int64], sureness: NDArray[np.float64], camera: NDArray[np.int16]
) -> dict[str, int]:
    """Clusters to look at, with why, no cluster twice: the largest, the one of most cameras, the median, and so on.

    Args:
        labels: (N), negative for an image in no cluster.
        sureness: (C) mean silhouette of each.
        camera: (N), -1 for none.
    """
    if not len(sureness):
        return {}
    sizes = np.bincount(labels[labels != NOISE], minlength=len(sureness))
    cameras = np.zeros(len(sizes), np.int64)
    is_counted = (labels != NOISE) & (camera >= 0)
    seen = np.unique(np.stack([labels[is_counted], camera[is_counted]]), axis=1)
    np.add.at(cameras, seen[0].astype(np.int64), 1)
    keys = {"the largest": -sizes, "of the most cameras": -cameras, "of median size": abs(sizes - np.median(sizes))}
    keys |= {"the smallest": sizes, "the least sure": sureness}
    if cameras.max(initial=0) < 2:  # all are alike
        del keys["of the most cameras"]
    picked: dict[str, int] = {}
    for why, key in keys.items():
        left = [one for one in np.argsort(key, kind="stable").tolist() if one not in picked.values()]
        if left:
            picked[why] = left[0]
    return picked


def look_back(labels: NDArray[np.int64], before: NDArray[np.int64], cluster: int) -> Before:
    """Where the images of a cluster were.

    Args:
        labels: (N) now.
        before: (N) then.
        cluster: one of now.
    """
    then = before[labels == cluster]
    clusters, shared = np.unique(then[then != NOISE], return_counts=True)
    order = np.argsort(-shared, kind="stable")
    sizes = np.bincount(before[before != NOISE], minlength=1)
    clusters = clusters[order]
    return Before(clusters, shared[order], sizes[clusters], alone=int((then == NOISE).sum()))


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of (K) rows, evenly spread from the first to the last, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def mean_of_each(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each cluster: (C).

    Args:
        values: (K) of the images in clusters, in their order.
        labels: (N), of which K are in a cluster.
    """
    inside = labels[labels != NOISE]
    return np.bincount(inside, values).astype(np.float64) / np.maximum(np.bincount(inside), 1)
