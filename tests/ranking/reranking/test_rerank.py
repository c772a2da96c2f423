"""Re-ranking against a dense version written from the definition of Zhong et al. 2017, sets and loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.neighbours import find_nearest, find_neighbours, nearest_columns
from lupctl.core.ranking.reranking.rerank import RerankSettings, encode_neighbours
from lupctl.core.ranking.reranking.sparse import mean_rows, sparse_rows, sum_of_minima
from tests.references.rerank import clustered, fast_distances, slow_distances

CPU = torch.device("cpu")


@pytest.mark.parametrize("base", ["d2", "d4"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 3), (5, 1), (1, 1), (15, 2), (3, 8), (200, 6)])
def test_sparse_equals_dense(k1: int, k2: int, weight: float, base: str) -> None:
    features = clustered(k1 * 10 + k2, 70)
    chosen = RerankSettings(k1=k1, k2=k2, weight=weight, base=base)  # type: ignore[arg-type]
    np.testing.assert_allclose(fast_distances(features, 20, chosen), slow_distances(features, 20, chosen), atol=2e-6)


@pytest.mark.parametrize("seed", range(6))
def test_copies_in_the_pool_keep_pool_order(seed: int) -> None:
    features = clustered(seed, 60, copies=25)
    chosen = RerankSettings(k1=4 + seed, k2=3)
    np.testing.assert_allclose(fast_distances(features, 18, chosen), slow_distances(features, 18, chosen), atol=2e-6)


@pytest.mark.parametrize("seed", range(4))
def test_features_of_signs_tie_everywhere(seed: int) -> None:
    # Entries of -1 and 1 in 16 dimensions: all products are exact and there are at most 17 different cosines.
    features = np.random.default_rng(seed).choice([-1.0, 1.0], (64, 16)).astype(np.float32)
    chosen = RerankSettings(k1=6, k2=4)
    np.testing.assert_allclose(fast_distances(features, 20, chosen), slow_distances(features, 20, chosen), atol=2e-6)


def test_more_copies_than_neighbours_leave_no_hole() -> None:
    # Twelve copies and k1 = 3: the later ones are not among their own nearest and have no reciprocal neighbour.
    features = clustered(1, 40)
    features[10:22] = features[10]
    chosen = RerankSettings(k1=3, k2=1)
    fast = fast_distances(features, 15, chosen)
    assert np.isfinite(fast).all()
    rows = UnitRows(features, np.arange(40), device=CPU)
    encoding = encode_neighbours(rows, find_neighbours(rows, count=4), chosen)
    total = np.bincount(np.repeat(np.arange(40), np.diff(encoding.start)), encoding.value, 40)
    np.testing.assert_allclose(total[:14], 1, atol=1e-6)
    assert (total[14:22] == 0).all()


def test_a_pool_of_one_image_over_and_over() -> None:
    features = np.ones((9, 5), np.float32)
    distance = fast_distances(features, 3, RerankSettings(k1=20, k2=6))
    np.testing.assert_allclose(distance, 0, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_any_chunk_gives_the_same(seed: int, chunk: int) -> None:
    features = clustered(seed, 45, copies=5)
    chosen = RerankSettings(k1=6, k2=3)
    np.testing.assert_array_equal(
        fast_distances(features, 14, chosen, chunk=chunk), fast_distances(features, 14, chosen)
    )


def test_lambda_one_is_the_normalised_distance_and_half_precision_is_read() -> None:
    features = clustered(3, 40).astype(np.float16)
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    squared = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    expected = squared / squared.max(axis=1, keepdims=True)
    fast = fast_distances(features, 10, RerankSettings(weight=1.0))
    np.testing.assert_allclose(fast, expected[:10, 10:], atol=1e-6)


def test_farthest_of_the_whole_pool_normalises_not_of_the_gallery() -> None:
    # The image farthest from query 0 is query 1.
    features = np.array([[1, 0], [-1, 0], [1, 1], [1, -1]], np.float32)
    distance = fast_distances(features, 2, RerankSettings(weight=1.0))
    np.testing.assert_allclose(distance[0], [(2 - math.sqrt(2)) / 4] * 2, atol=1e-6)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(0, 6, 0.3), (20, 0, 0.3), (20, 6, -0.1), (20, 6, 1.1)])
def test_impossible_settings_are_refused(k1: int, k2: int, weight: float) -> None:
    with pytest.raises(ValueError, match="k1 and k2 are at least 1"):
        RerankSettings(k1=k1, k2=k2, weight=weight)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_nearest_columns_are_a_stable_sort(seed: int, count: int) -> None:
    block = np.random.default_rng(seed).integers(0, 5, (6, 12)).astype(np.float32)
    value, column = nearest_columns(torch.from_numpy(block), count)
    expected = np.argsort(-block, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(column, expected)
    np.testing.assert_array_equal(value, np.take_along_axis(block, expected, axis=1))


@pytest.mark.parametrize("count", [1, 7, 64, 300])
def test_a_search_in_parts_finds_what_the_whole_finds(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(count)
    # Each image lies there three times, far apart: ties go to the first of them.
    features = np.tile(rng.standard_normal((80, 9), dtype=np.float32), (3, 1))
    gallery, asked = UnitRows(features, np.arange(240), device=CPU), UnitRows(features[:50], np.arange(50), device=CPU)
    units = asked.unit(0, 50)
    value, column = nearest_columns(gallery.cosines(units), min(count, 240))
    assert torch.equal(column[:, 0], torch.arange(50))
    for rows, chunk_bytes in ((1024, 64 << 20), (16, 4 * 16 * 70), (1, 400)):
        monkeypatch.setattr("lupctl.core.ranking.reranking.neighbours.SEARCH_ROWS", rows)
        monkeypatch.setattr("lupctl.core.ranking.metrics.ranking.CHUNK_BYTES", chunk_bytes)
        cosine, row = find_nearest(gallery, units, count)
        assert torch.equal(row, column)
        assert torch.equal(cosine, value)


def test_sparse_algebra_equals_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((30, 30)) < 0.2, rng.random((30, 30)), 0).astype(np.float32)
    row, column = np.nonzero(dense)
    matrix = sparse_rows(row, column, dense[row, column], shape=(30, 30))
    groups = rng.integers(0, 30, (30, 4))
    rows = np.array([3, 0, 11, 29])
    for limit in (1, 50, 1 << 20):
        monkeypatch.setattr("lupctl.core.ranking.reranking.sparse.ENTRIES", limit)
        mean = mean_rows(matrix, groups)
        found = np.zeros((30, 30))
        found[np.repeat(np.arange(30), np.diff(mean.start)), mean.column] = mean.value
        np.testing.assert_allclose(found, dense[groups].mean(axis=1), atol=1e-6)
        minima = sum_of_minima(matrix, rows, matrix.transposed(range(12, 30)))
        expected = np.minimum(dense[rows][:, None], dense[None, 12:]).sum(axis=2)
        np.testing.assert_allclose(minima, expected, atol=1e-6)
