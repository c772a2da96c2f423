"""Where a cluster's images were, against counting by hand in loops."""

from collections import Counter

import numpy as np
import pytest

from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.clustering.tracing import look_back, mean_of_each, pick_clusters, spread

NO_CAMERAS = np.full(12, -1, np.int16)


@pytest.mark.parametrize("seed", range(3))
def test_looking_back_counts_each_image_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, before = rng.integers(-1, 4, 80), rng.integers(-1, 6, 80)
    for cluster in range(4):
        then = Counter(before[image] for image in range(80) if now[image] == cluster)
        whole = Counter(before.tolist())
        expected = sorted((-count, one) for one, count in then.items() if one != NOISE)
        found = look_back(now, before, cluster)
        assert found.clusters.tolist() == [one for _, one in expected]
        assert found.shared.tolist() == [-count for count, _ in expected]
        assert found.sizes.tolist() == [whole[one] for _, one in expected]
        assert found.alone == then[NOISE]


def test_a_cluster_that_comes_from_nowhere() -> None:
    found = look_back(np.zeros(3, np.int64), np.full(3, NOISE), 0)
    assert (len(found.clusters), len(found.sizes), found.alone) == (0, 0, 3)


def test_each_cluster_is_picked_for_one_reason() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [2] * 3 + [NOISE] + [3] + [4] * 3)
    camera = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 0, 1, 1, 1], np.int16)
    sureness = np.array([0.1, 0.4, 0.3, 0.9, -0.2])
    assert pick_clusters(labels, sureness, camera) == {
        "the largest": 0, "of the most cameras": 2, "of median size": 4, "the smallest": 3, "the least sure": 1,
    }  # fmt: skip


def test_without_cameras_none_has_the_most() -> None:
    labels = np.array([0] * 5 + [1] * 4 + [NOISE] * 3)
    picked = pick_clusters(labels, np.array([0.5, 0.2]), NO_CAMERAS)
    assert picked == {"the largest": 0, "of median size": 1}
    one_camera = pick_clusters(labels, np.array([0.5, 0.2]), np.zeros(12, np.int16))
    assert one_camera == picked
    assert pick_clusters(np.full(12, NOISE), np.empty(0), NO_CAMERAS) == {}


def test_spread_keeps_the_ends() -> None:
    assert spread(np.arange(3), 6).tolist() == [0, 1, 2]
    found = spread(np.arange(50), 6).tolist()
    assert (len(set(found)), found[0], found[-1]) == (6, 0, 49)


def test_means_are_of_the_images_in_clusters() -> None:
    labels = np.array([1, NOISE, 0, 1])
    np.testing.assert_allclose(mean_of_each(np.array([0.2, 0.5, 0.4]), labels), [0.5, 0.3])
