"""What is said of clusters, against scikit-learn on dense distances and against counting."""

import math

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.clustering.quality import agreement, describe_clusters, purity, silhouettes
from lupctl.core.ranking.reranking.sparse import SparseRows, sparse_rows

LABELS = np.array([0, 0, 1, 1, 1, NOISE, 2, 0])


def random_graph(seed: int, count: int, reach: float) -> tuple[SparseRows, np.ndarray]:
    """Distances up to `reach`, and all of them with 1 for those beyond."""
    drawn = np.random.default_rng(seed).random((count, count)).astype(np.float32)
    dense = np.minimum(drawn, drawn.T)
    np.fill_diagonal(dense, 0)
    row, column = np.nonzero(dense <= reach)
    return sparse_rows(row, column, dense[row, column], shape=(count, count)), np.where(dense <= reach, dense, 1)


@pytest.mark.parametrize("reach", [0.2, 0.5, 0.99])
def test_silhouettes_are_scikit_learns(reach: float) -> None:
    graph, dense = random_graph(1, 60, reach)
    labels = np.random.default_rng(2).integers(-1, 5, 60)
    labels[0], labels[labels == 4] = 4, 3
    labels[0] = 4  # alone
    inside = labels != NOISE
    expected = silhouette_samples(dense[np.ix_(inside, inside)], labels[inside], metric="precomputed")
    np.testing.assert_allclose(silhouettes(labels, graph), expected, atol=1e-6)


def test_counts() -> None:
    graph, _ = random_graph(1, len(LABELS), 0.5)
    found = describe_clusters(LABELS, silhouettes(LABELS, graph), np.array([1, 2, 1, 1, -1, 3, -1, 2], np.int16))
    assert (found.clusters, found.noise, found.median_size, found.largest) == (3, 1 / 8, 3, 3)
    assert found.cameras == (2 + 1) / 2  # cluster 2 has no known camera


def test_nothing_to_count() -> None:
    graph, _ = random_graph(1, 4, 0.5)
    none, one = np.full(4, NOISE), np.zeros(4, np.int64)
    found = describe_clusters(none, silhouettes(none, graph), np.full(4, -1, np.int16))
    assert (found.clusters, found.noise, found.largest) == (0, 1, 0)
    assert all(math.isnan(value) for value in (found.median_size, found.silhouette, found.cameras))
    assert math.isnan(describe_clusters(one, silhouettes(one, graph), np.ones(4, np.int16)).silhouette)


def test_agreement_counts_noise_as_images_alone() -> None:
    assert agreement(LABELS, LABELS) == 1
    assert agreement((LABELS + 1) % 3 * (LABELS != NOISE) - (LABELS == NOISE), LABELS) == 1  # other names
    all_noise = np.full(len(LABELS), NOISE)
    assert agreement(all_noise, all_noise) == 1
    assert agreement(all_noise, LABELS) == 0


def test_purity_leaves_unknown_persons_out() -> None:
    person = np.array([7, 7, 3, 3, 4, 9, -1, 8])
    assert purity(LABELS, person) == (2 + 2) / 6
    assert math.isnan(purity(np.full(8, NOISE), person))
