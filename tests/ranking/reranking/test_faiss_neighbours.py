"""Re-ranking's neighbours by faiss: what the literal version and our own pass find, with ties, in parts, on a GPU."""

from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.errors import DeviceError, UsageError
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking import faiss_neighbours
from lupctl.core.ranking.reranking.faiss_gpu import gpu_of
from lupctl.core.ranking.reranking.faiss_neighbours import find_neighbours_by_faiss, pick_search
from lupctl.core.ranking.reranking.neighbours import Neighbours, find_neighbours
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.warnings import say_where_faiss_runs
from lupctl.core.system.progress.lines import Progress
from tests.references.rerank import clustered, fast_distances, slow_distances

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def pool_of(features: NDArray[np.float32]) -> UnitRows:
    return UnitRows(features, np.arange(len(features)), device=CPU)


def signs(seed: int) -> NDArray[np.float32]:
    """Entries of -1 and 1 in 16 dimensions: there are at most 17 different cosines."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (64, 16)).astype(np.float32)


def check_same(found: Neighbours, expected: Neighbours) -> None:
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.cosine, expected.cosine, atol=2e-6)
    np.testing.assert_allclose(found.least, expected.least, atol=2e-6)


@pytest.mark.parametrize("base", ["d2", "d4"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 3), (1, 1), (3, 8), (200, 6)])
def test_faiss_equals_dense(k1: int, k2: int, weight: float, base: str) -> None:
    features = clustered(k1 * 10 + k2, 70)
    chosen = RerankSettings(k1=k1, k2=k2, weight=weight, base=base, neighbours="faiss")  # type: ignore[arg-type]
    np.testing.assert_allclose(fast_distances(features, 20, chosen), slow_distances(features, 20, chosen), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_random_features_copies_and_ties_equal_dense(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = RerankSettings(k1=4 + seed, k2=3, neighbours="faiss")
    many_copies = clustered(seed, 60)
    many_copies[10:30] = many_copies[10]
    for features in (
        rng.standard_normal((60, 33), dtype=np.float32),
        clustered(seed, 60, copies=25),
        signs(seed),
        many_copies,
    ):
        fast, slow = fast_distances(features, 18, chosen), slow_distances(features, 18, chosen)
        # Of more than k1 copies the later ones have no neighbour, not even themselves; 0 / 0 in the literal version.
        np.testing.assert_allclose(fast, np.where(np.isnan(slow), fast, slow), atol=1e-5)
    one_image = fast_distances(np.ones((30, 5), np.float32), 10, RerankSettings(neighbours="faiss"))
    np.testing.assert_allclose(one_image, 0, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))
def test_any_parts_and_chunks_find_what_our_pass_finds(seed: int, count: int, rows: int, chunk: int) -> None:
    for features in (clustered(seed, 45, copies=9), signs(seed)):
        pool, done = pool_of(features), list[Any]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(faiss_neighbours, "INDEX_BYTES", 4 * pool.dimension * rows)
            found = find_neighbours_by_faiss(pool, count=count, others=[pool], chunk=chunk, advance=done.append)
        check_same(found, find_neighbours(pool, count=count))
        assert sum(done) == len(pool)


def test_ties_are_what_takes_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(signs(1))
    expected = find_neighbours(pool, count=7)
    monkeypatch.setattr(faiss_neighbours, "CLOSE", -1.0)
    assert not torch.equal(find_neighbours_by_faiss(pool, count=7).index, expected.index)
    # Ordered by number within a distance it would still hold other ones of those that tie at its end.
    kept = find_neighbours_by_faiss(pool, count=7).index.sort(dim=1).values
    assert not torch.equal(kept, expected.index.sort(dim=1).values)


def test_an_index_stays_within_its_bytes_and_rows_in_doubt_alone_are_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    features = rng.standard_normal((500, 16), dtype=np.float32)
    features[400:] = features[:100]
    made: list[Any] = []
    again: list[int] = []
    flat, unit_at = faiss.IndexFlatIP, UnitRows.unit_at
    monkeypatch.setattr(faiss, "IndexFlatIP", lambda dimension: made.append(flat(dimension)) or made[-1])
    monkeypatch.setattr(UnitRows, "unit_at", lambda self, rows: again.extend(rows.tolist()) or unit_at(self, rows))
    monkeypatch.setattr(faiss_neighbours, "INDEX_BYTES", 4 * 16 * 130)
    pool = pool_of(features)
    check_same(find_neighbours_by_faiss(pool, count=2), find_neighbours(pool, count=2))
    assert [index.ntotal for index in made] == [130, 130, 130, 110]
    # Of the copies each has two at one distance, and whoever is nearest to a copy.
    near = find_neighbours(pool, count=3).cosine
    tied = np.flatnonzero((near[:, :-1] - near[:, 1:] < 1e-6).any(dim=1))
    assert 200 < len(tied) < 300
    assert again == tied.tolist()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """GPUs as faiss would see them, which compute on the CPU: numbers of those that an index was moved to."""
    seen: list[int] = []

    def move(resources: object, number: int, index: Any) -> Any:
        assert resources == "resources"
        seen.append(number)
        return index

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss_neighbours, "gpu_of", lambda device: {None: 0, 0: 1}[device.index])
    return seen


def test_gpus_take_turns_with_the_whole_pool_on_each(moved: list[int]) -> None:
    features = clustered(3, 60, copies=20)
    one, other = pool_of(features), UnitRows(features, np.arange(60), device=torch.device("cpu", 0))
    check_same(find_neighbours_by_faiss(one, count=9, others=[other], chunk=7), find_neighbours(one, count=9))
    assert moved == [0, 1]


def test_a_gpu_without_room_is_named(moved: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(clustered(3, 60))

    def refuse(*_: object) -> None:
        raise RuntimeError("Error in virtual void* allocMemory: Failed to cudaMalloc 12 bytes\nat somewhere")

    class Full:
        ntotal = 60
        search = staticmethod(refuse)

    for move in (refuse, lambda *_: Full()):
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
        with pytest.raises(
            DeviceError, match=r"cuda:0: not enough memory for the index of 60 images \(Error in virtual"
        ):
            find_neighbours_by_faiss(pool, count=9)
    assert moved == []


def test_which_search_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.device("cuda", 1)
    assert pick_search(None, [CUDA], count=21) == "exact", "faiss sees no GPU here"
    assert pick_search("faiss", [CPU], count=5_000) == "faiss"
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    assert [gpu_of(device) for device in (CPU, CUDA, second)] == [None, 0, None]
    assert pick_search(None, [CUDA], count=21) == "faiss"
    assert pick_search(None, [CUDA, second], count=21) == "exact", "one of them is not seen"
    assert pick_search(None, [CPU], count=21) == "exact", "faiss sees a GPU, and the CPU computes"
    assert pick_search("exact", [CUDA], count=21) == "exact"
    assert pick_search(None, [CUDA], count=2_047) == "faiss"
    assert pick_search(None, [CUDA], count=2_048) == "exact", "more than faiss's kernels give"
    with pytest.raises(UsageError, match="at most 2,047 neighbours on a GPU, but 2,048 are needed") as caught:
        pick_search("faiss", [CUDA], count=2_048)
    assert caught.value.hint == "--neighbours exact"


def test_a_search_beside_the_gpu_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = RerankSettings(neighbours="faiss")
    for rerank, device in ((None, CUDA), (RerankSettings(), CUDA), (asked, CPU)):
        say_where_faiss_runs(rerank, [device], Progress())
    assert capsys.readouterr().err == ""
    say_where_faiss_runs(asked, [CUDA], Progress())
    assert "faiss cannot use cuda:0: it searches re-ranking's neighbours on the CPU" in capsys.readouterr().err
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    say_where_faiss_runs(asked, [CUDA], Progress())
    assert capsys.readouterr().err == ""
