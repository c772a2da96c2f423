"""Scores of how little a feature moved, against slow loops, a closed form, and the edges."""

import math

import numpy as np
import pytest

from lupctl.core.choices import MovementDistance
from lupctl.core.ranking.metrics.movement import movement_scores


def slow_score(first: list[float], second: list[float], distance: str) -> float:
    """From the definition, one number after the other."""
    lengths = [math.sqrt(math.fsum(x * x for x in vector)) for vector in (first, second)]
    if distance == "cosine":
        return math.fsum(x * y for x, y in zip(first, second, strict=True)) / (lengths[0] * lengths[1])
    scale = lengths if distance == "l2" else [1.0, 1.0]
    return -math.sqrt(math.fsum((x / scale[0] - y / scale[1]) ** 2 for x, y in zip(first, second, strict=True)))


@pytest.mark.parametrize("distance", ["cosine", "l2", "raw-l2"])
def test_scores_are_those_of_the_definition(distance: MovementDistance) -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=(50, 7)).astype(np.float32)
    after = (before + random.normal(size=(50, 7)) * random.uniform(0.01, 3, size=(50, 1))).astype(np.float32)
    expected = [slow_score(a, b, distance) for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    np.testing.assert_allclose(movement_scores(before, after, distance), expected, atol=1e-9)


def test_directions_give_one_order_and_raw_features_another() -> None:
    """|u - v|² = 2 - 2 cos of unit vectors; lengths count only where features are taken as they are."""
    random = np.random.default_rng(1)
    before, after = random.normal(size=(2, 40, 5)) * random.uniform(0.1, 9, size=(2, 40, 1))
    cosine, unit, raw = (movement_scores(before, after, name) for name in ("cosine", "l2", "raw-l2"))
    np.testing.assert_allclose(unit**2, 2 - 2 * cosine, atol=1e-12)
    assert np.argsort(cosine).tolist() == np.argsort(unit).tolist() != np.argsort(raw).tolist()


def test_a_feature_without_a_direction_has_no_score() -> None:
    before, after = np.array([[0.0, 0.0], [np.nan, 1.0], [1.0, 1.0]]), np.ones((3, 2))
    for distance in ("cosine", "l2"):
        assert np.isfinite(movement_scores(before, after, distance)).tolist() == [False, False, True]
    assert np.isfinite(movement_scores(before, after, "raw-l2")).tolist() == [True, False, True]
