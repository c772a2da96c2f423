"""Rows whose cosines rank as Euclidean distances do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.ranking.metrics.euclidean import lift_euclidean


def orders(features: np.ndarray, is_query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gallery of each query by cosine, and the Euclidean distances in that order."""
    rows = lift_euclidean(features, is_query).astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(-(unit[is_query] @ unit[~is_query].T), axis=1)
    distance = np.linalg.norm(features[is_query][:, None] - features[~is_query][None], axis=2)
    return order, np.take_along_axis(distance, order, axis=1)


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_nearest_by_cosine_is_the_nearest_by_distance(seed: int, dim: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    features = scale * np.maximum(rng.standard_normal((40, dim)) + 0.5, 0) * rng.uniform(0.5, 4, (40, 1))
    _, distance = orders(features, np.arange(40) < 10)
    assert (np.diff(distance, axis=1) >= -1e-5 * distance.max()).all(), "from near to far, to float32's rounding"


def test_directions_alone_would_rank_otherwise() -> None:
    features = np.array([[1.0, 0.0], [9.0, 0.0], [0.9, 0.5]])
    order, distance = orders(features, np.array([True, False, False]))
    assert order.tolist() == [[1, 0]], "one of the same direction, and far away, comes last"
    assert distance[0] == pytest.approx([np.hypot(0.1, 0.5), 8.0])


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_zeros_and_equal_lengths(kind: type) -> None:
    zeros = lift_euclidean(np.zeros((3, 2), kind), np.array([True, False, False]))
    assert np.isfinite(zeros).all()
    assert zeros.dtype == np.float32
    rows = lift_euclidean(np.array([[1, 0], [0, 2], [3, 0]], kind), np.array([True, False, False]))
    assert np.linalg.norm(rows[1]) == pytest.approx(np.linalg.norm(rows[2]))
