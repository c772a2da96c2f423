"""Ranks within rows and within groups of columns, against a walk through the sorted entries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.columns import cut_columns, group_columns, one_group, pick_width
from lupctl.core.ranking.metrics.ordering import _sort_by_torch, ranks_in_groups, sort_pieces
from lupctl.core.ranking.metrics.pairs import EDGES, LIMITS, PairCounter, _count_by_arithmetic, _count_by_search
from lupctl.core.ranking.metrics.ranking import RankedBlock
from lupctl.core.ranking.metrics.vectors import Scratch


def draw(seed: int, num_columns: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """A block of few different values, infinite ones and both zeros among them, and entries of it by row."""
    rng = np.random.default_rng(seed)
    block = rng.choice(np.array([-1, -0.5, -0.0, 0.0, 0.25, 3, np.inf], np.float32), (5, num_columns))
    count = int(rng.integers(1, 30))
    return block, np.sort(rng.integers(0, 5, count)), rng.integers(0, num_columns, count)


def walk(block: NDArray[np.float32], row: int, column: int, among: NDArray[np.int64]) -> int:
    order = sorted(among.tolist(), key=lambda other: (block[row, other], other))
    return order.index(column) + 1


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 17),
    st.sampled_from([1, 100, 1 << 20]),
    st.sampled_from([1, 40, 1 << 20]),
)
def test_ranks_are_those_of_a_walk(
    seed: int, num_columns: int, num_groups: int, width: int, tied_bytes: int, searches: int
) -> None:
    block, row, column = draw(seed, num_columns)
    group = np.random.default_rng(seed + 1).integers(0, num_groups, num_columns)
    values = torch.from_numpy(block)
    whole, apart = (cut_columns(groups, width) for groups in (one_group(num_columns), group_columns(group)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lupctl.core.ranking.metrics.ordering.TIED_BYTES", tied_bytes)
        patch.setattr("lupctl.core.ranking.metrics.ordering.MAX_SEARCHES", searches)
        plain = ranks_in_groups(values, row, column, ordered=sort_pieces(values, whole), pieces=whole)
        ordered = sort_pieces(values, apart, scratch=Scratch())
        overall, within = ranks_in_groups(values, row, column, ordered=ordered, pieces=apart)
    pairs = list(zip(row.tolist(), column.tolist(), strict=True))
    assert overall.tolist() == [walk(block, one, other, np.arange(num_columns)) for one, other in pairs]
    assert [some.tolist() for some in plain] == [overall.tolist()] * 2
    assert within.tolist() == [walk(block, one, other, np.flatnonzero(group == group[other])) for one, other in pairs]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 6), st.integers(1, 33))
def test_pieces_hold_each_column_once_and_are_sorted(seed: int, num_columns: int, num_groups: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, num_groups, num_columns)
    pieces = cut_columns(group_columns(group), width)
    filled = np.delete(np.arange(len(pieces) * width), pieces.empty)
    assert np.sort(pieces.columns[filled]).tolist() == list(range(num_columns))
    assert (pieces.group[filled // width] == group[pieces.columns[filled]]).all()
    assert (pieces.piece[pieces.columns[filled]] == filled // width).all()
    block = torch.from_numpy(rng.standard_normal((11, num_columns)).astype(np.float32))
    ordered = sort_pieces(block, pieces)
    for piece in range(len(pieces)):
        own = np.sort(block.numpy()[:, pieces.piece == piece], axis=1)
        assert (ordered[:, piece, : own.shape[1]].numpy() == own).all()
        assert (ordered[:, piece, own.shape[1] :] == torch.inf).all()
    by_torch = torch.empty_like(ordered)
    _sort_by_torch(block, pieces, out=by_torch)
    assert torch.equal(by_torch, ordered)


def test_pieces_are_wide_for_many_right_answers_and_narrow_for_small_groups() -> None:
    assert pick_width(one_group(15_913), 14.8) == 512
    assert pick_width(one_group(15_913), 65) == 4096
    assert pick_width(one_group(30), 1) == 32
    assert pick_width(one_group(1), 1) == pick_width(one_group(0), 0) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0, 1, 2, 5, 17, 257, 513, 4097]), min_size=1, max_size=60), st.sampled_from([1, 100]))
def test_the_sorted_copy_is_bounded_whatever_the_groups(sizes: list[int], right_answers: float) -> None:
    groups = group_columns(np.repeat(np.arange(len(sizes)), sizes))
    pieces = cut_columns(groups, pick_width(groups, right_answers))
    assert len(pieces) * pieces.width <= 1.5 * sum(sizes)


def test_without_entries_there_are_no_ranks() -> None:
    nothing, pieces = np.zeros(0, np.int64), cut_columns(one_group(3), 2)
    ordered = sort_pieces(torch.zeros(2, 3), pieces)
    assert [
        len(some) for some in ranks_in_groups(torch.zeros(2, 3), nothing, nothing, ordered=ordered, pieces=pieces)
    ] == [0, 0]


def test_distances_at_an_edge_and_beside_it_are_counted_right() -> None:
    """A search's counts, of every edge and every middle between edges, and of the float32 before and after them."""
    edges = (EDGES - 1).astype(np.float32)
    middle = ((edges[1:].astype(np.float64) + edges[:-1]) / 2).astype(np.float32)
    both = np.concatenate([edges, middle])
    some = np.concatenate([both, *(np.nextafter(both, np.float32(end)) for end in (-2, 2)), [np.inf] * 9, [-0.0, 1.2]])
    block = np.random.default_rng(0).permutation(np.tile(some, 10)).astype(np.float32).reshape(20, -1)
    half = np.arange(20) % 2
    found = _count_by_arithmetic(block, half)
    for which, bins in enumerate(found.reshape(2, -1)):
        first = LIMITS.searchsorted(block[half == which].ravel())
        assert bins.tolist() == np.bincount(first, minlength=2002).tolist()
    by_torch = _count_by_search(torch.from_numpy(block), half)
    assert (by_torch == found).all()


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.25, 0.75), (-1.0000002, -0.5), (0.999, 1.0000002)])
def test_pairs_are_counted_wherever_they_lie(ends: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    block = rng.uniform(*ends, (9, 31)).astype(np.float32)
    block[:, 0], block[:, 1] = ends
    block[2, 5:] = np.inf
    block[7] = np.inf
    half = np.array([0, 1] * 4 + [0])
    counter = PairCounter(half)
    none = np.zeros(0, np.int64)
    for start, stop in ((0, 4), (4, 9)):
        some = torch.from_numpy(block[start:stop])
        counter(RankedBlock(start=start, block=some, row=none, column=none, rank_in_group=none))
    # As the distances come, -cos: rounding may carry one beyond the last edge, where it still counts.
    edges = np.append((EDGES - 1).astype(np.float32)[:-1], np.float32(2))
    for which in (0, 1):
        own = block[half == which]
        assert counter.counts().different[which].tolist() == [int((own <= edge).sum()) for edge in edges]
    assert counter.counts().different[:, -1].sum() == 9 * 31 - 26 - 31
