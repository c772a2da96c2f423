"""How good clusters are: what can be seen without labels, and with them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.reranking.sparse import SparseRows


@dataclass(frozen=True)
class Quality:
    """Numbers about the clusters of N images; NaN where there is nothing to count.

    Args:
        clusters: their number.
        noise: share of the images that are in none.
        median_size, largest: images in a cluster.
        silhouette: mean over the images in clusters of (b - a) / max(a, b), where a is the mean distance to the others
            of the own cluster and b to the nearest other cluster (Rousseeuw 1987). Images farther apart than the graph
            reaches count as 1 apart, which is the largest distance there is.
        cameras: mean number of cameras in a cluster.
    """

    clusters: int
    noise: float
    median_size: float
    largest: int
    silhouette: float
    cameras: float


def describe_clusters(labels: NDArray[np.int64], silhouette: NDArray[np.float64], camera: NDArray[np.int16]) -> Quality:
    """What can be said of clusters without knowing who is in them.

    Args:
        labels: (N), as `find_clusters` gives them.
        silhouette: of the images in clusters, as `silhouettes` gives them.
        camera: (N), -1 for none.
    """
    inside = labels != NOISE
    sizes = np.bincount(labels[inside])
    seen = np.unique(np.stack([labels[inside], camera[inside]]), axis=1)
    is_known = seen[1] >= 0
    return Quality(
        clusters=len(sizes),
        noise=float(1 - inside.mean()) if len(labels) else np.nan,
        median_size=float(np.median(sizes)) if len(sizes) else np.nan,
        largest=int(sizes.max(initial=0)),
        silhouette=float(silhouette.mean()) if len(sizes) > 1 else np.nan,
        cameras=float(is_known.sum() / len(np.unique(seen[0, is_known]))) if is_known.any() else np.nan,
    )


def silhouettes(labels: NDArray[np.int64], graph: SparseRows) -> NDArray[np.float64]:
    """The silhouette of every image that is in a cluster, in their order; 0 of one alone in its cluster."""
    inside = np.flatnonzero(labels != NOISE)
    sizes = np.bincount(labels[inside])
    which, position = graph.entries(inside)
    other = labels[graph.column[position]]
    counts = other != NOISE
    key, inverse = np.unique(which[counts] * len(sizes) + other[counts], return_inverse=True)
    # Sums of 1 - distance: images that are not in the graph add nothing.
    nearness = np.bincount(inverse, 1.0 - graph.value[position[counts]], len(key))
    row, cluster = key // len(sizes), key % len(sizes)
    is_own = cluster == labels[inside][row]
    own_size = sizes[labels[inside]]
    own = np.zeros(len(inside))
    own[row[is_own]] = nearness[is_own] - 1  # an image is at distance 0 of itself
    near = 1 - own / np.maximum(own_size - 1, 1)
    elsewhere = np.zeros(len(inside))
    np.maximum.at(elsewhere, row[~is_own], nearness[~is_own] / sizes[cluster[~is_own]])
    far = 1 - elsewhere
    value = (far - near) / np.maximum(np.maximum(near, far), np.finfo(float).tiny)
    return np.where(own_size > 1, value, 0.0)


def agreement(labels: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """The adjusted Rand index of two clusterings (Hubert and Arabie 1985): 1 for the same, about 0 for chance.

    Each image in no cluster is one of its own.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(_alone(before), _alone(labels)))


def purity(labels: NDArray[np.int64], person: NDArray[np.int64]) -> float:
    """Share of the images in clusters that show the person whom most of their cluster show; NaN without any.

    Args:
        labels: (N) clusters.
        person: (N) numbers; negative for nobody known, who are not counted.
    """
    counted = (labels != NOISE) & (person >= 0)
    if not counted.any():
        return np.nan
    pairs, times = np.unique(np.stack([labels[counted], person[counted]]), axis=1, return_counts=True)
    most = np.zeros(int(pairs[0].max()) + 1)
    np.maximum.at(most, pairs[0], times)
    return float(most.sum() / counted.sum())


def _alone(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels in which every image of noise has one of its own."""
    result = labels.copy()
    noise = np.flatnonzero(labels == NOISE)
    result[noise] = labels.max(initial=0) + 1 + np.arange(len(noise))
    return result
