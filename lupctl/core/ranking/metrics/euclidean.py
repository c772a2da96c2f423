"""Euclidean distances as cosines, so that what ranks by the one ranks by the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def lift_euclidean(features: NDArray[Any], is_query: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows whose cosines rank the gallery of each query as the Euclidean distances of the features do.

    A query x becomes (x, 1, 0), a gallery image y becomes (y, -|y|^2 / 2, z) with z such that all rows of the gallery
    are equally long. Their product is (|x|^2 - |x - y|^2) / 2, and the lengths no longer matter (Bachrach et al. 2014
    reduce in the same way). Features are divided by their mean length first, so that no term is lost in float32.

    Args:
        features: (N, D).
        is_query: (N).

    Returns:
        (N, D + 2).

    >>> rows = lift_euclidean(np.array([[1.0], [4.0], [1.5]]), np.array([True, False, False]))
    >>> query, far, near = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    >>> bool(query @ near > query @ far)
    True
    """
    scaled = features.astype(np.float64)
    mean = float(np.linalg.norm(scaled, axis=1).mean())
    scaled /= mean if mean > 0 else 1.0
    half = (scaled**2).sum(axis=1) / 2
    length = 2 * half + half**2
    longest = length[~is_query].max(initial=0.0)
    rows = np.empty((len(scaled), scaled.shape[1] + 2), np.float32)
    rows[:, :-2] = scaled
    rows[:, -2] = np.where(is_query, 1.0, -half)
    rows[:, -1] = np.where(is_query, 0.0, np.sqrt(np.maximum(longest - length, 0.0)))
    return rows
