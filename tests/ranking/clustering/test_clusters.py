"""Clusters by Jaccard distance against dense distances from the definition, and dense DBSCAN."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN

from lupctl.core.ranking.clustering.density import NOISE, Density, find_clusters
from lupctl.core.ranking.clustering.graph import neighbour_graph
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.reranking.sparse import SparseRows
from tests.references.rerank import clustered, slow_jaccard

CPU = torch.device("cpu")


def graph_of(features: NDArray[np.floating], settings: RerankSettings, eps: float) -> SparseRows:
    return neighbour_graph(UnitRows(features, np.arange(len(features)), device=CPU), settings, eps=eps)


def as_dense(graph: SparseRows) -> NDArray[np.float32]:
    """(N, N), infinite where there is no entry."""
    dense = np.full((len(graph), graph.width), np.inf, np.float32)
    dense[np.repeat(np.arange(len(graph)), np.diff(graph.start)), graph.column] = graph.value
    return dense


@pytest.mark.parametrize(("k1", "k2", "eps"), [(20, 6, 0.6), (7, 3, 0.5), (5, 1, 0.9), (200, 6, 0.3)])
@pytest.mark.parametrize("copies", [0, 20])
def test_entries_are_the_dense_distances_up_to_eps(k1: int, k2: int, eps: float, copies: int) -> None:
    features = clustered(k1 + k2, 40, copies=copies)
    settings = RerankSettings(k1=k1, k2=k2)
    expected = slow_jaccard(features, settings)
    np.fill_diagonal(expected, 0)
    dense = as_dense(graph_of(features, settings, eps))
    is_clear = np.abs(expected - eps) > 1e-6
    assert (np.isfinite(dense) == (expected <= eps))[is_clear].all()
    there = np.isfinite(dense)
    np.testing.assert_allclose(dense[there], expected[there], atol=1e-6)
    np.testing.assert_array_equal(dense, dense.T)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_equal_dense_dbscan(seed: int) -> None:
    features, settings = clustered(seed, 120, persons=9, copies=10 * seed), RerankSettings(k1=10, k2=3)
    everything = as_dense(graph_of(features, settings, 0.999))
    for eps, least in ((0.4, 4), (0.6, 2), (float(np.sort(everything[5])[8]), 4)):  # the last one is a distance itself
        found = find_clusters(graph_of(features, settings, eps), Density(eps, least))
        # What scikit-learn says of a matrix of all pairs.
        full = np.where(np.isfinite(everything), everything, 1)
        expected = DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit(full).labels_
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_clusters_of_five_thousand_images_equal_dense_dbscan() -> None:
    rng = np.random.default_rng(0)
    # Signs, so that distances tie everywhere.
    centres = rng.choice([-1.0, 1.0], (300, 64))
    flipped = np.where(rng.random((5000, 64)) < 0.12, -1, 1)
    features = (centres[rng.integers(0, 300, 5000)] * flipped).astype(np.float32)
    settings = RerankSettings(k1=30, k2=6)
    full = as_dense(graph_of(features, settings, 0.999))
    full[np.isinf(full)] = 1
    expected = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit(full).labels_
    np.testing.assert_array_equal(find_clusters(graph_of(features, settings, 0.6), Density(0.6, 4)), expected)
    assert 200 < expected.max() < 400


def test_images_that_are_all_the_same_are_one_cluster() -> None:
    labels = find_clusters(graph_of(np.ones((9, 5), np.float32), RerankSettings(k1=20, k2=6), 0.6), Density(0.6, 4))
    assert (labels == 0).all()


def test_far_images_are_noise() -> None:
    features = np.concatenate([clustered(1, 40, persons=2), 20 * np.eye(12, dtype=np.float32)[:1]])
    labels = find_clusters(graph_of(features, RerankSettings(k1=8, k2=1), 0.05), Density(0.05, 30))
    assert (labels == NOISE).all()
