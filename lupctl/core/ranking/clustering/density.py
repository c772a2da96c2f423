"""Clusters of images that are dense enough (DBSCAN, Ester et al. 1996), by scikit-learn on a sparse graph."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.reranking.sparse import SparseRows

# The label of an image in no cluster.
NOISE: Final = -1


@dataclass(frozen=True)
class Density:
    """When images are a cluster.

    Args:
        eps: the largest distance of neighbours.
        least: an image with so many neighbours, itself included, makes a cluster.
    """

    eps: float
    least: int


def find_clusters(graph: SparseRows, density: Density) -> NDArray[np.int64]:
    """The cluster of every image: (N) labels from 0, in the order of their first core image; `NOISE` for none.

    Args:
        graph: (N, N) distances, symmetric, with an entry of 0 for every image and all pairs up to eps.
        density: eps and the least number.
    """
    from scipy.sparse import csr_array
    from sklearn.cluster import DBSCAN

    shape = (len(graph), len(graph))
    # One type of index for both, else scipy copies and scikit-learn refuses.
    start = graph.start.astype(np.int32) if graph.start[-1] < 2**31 else graph.start
    matrix = csr_array((graph.value, graph.column.astype(start.dtype), start), shape=shape)
    made = DBSCAN(eps=density.eps, min_samples=density.least, metric="precomputed").fit(matrix)
    labels: NDArray[np.int64] = made.labels_.astype(np.int64)
    return labels
