"""Ranks within rows and within groups of columns, against a walk through the sorted entries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.ordering import (
    counts_below,
    group_columns,
    ranks_in_groups,
    ranks_of,
    sorted_groups,
    sorted_values,
)
from lupctl.core.ranking.metrics.pairs import EDGES, PairCounter
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


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 6), st.sampled_from([1, 100, 1 << 20]))
def test_ranks_are_those_of_a_walk(seed: int, num_columns: int, num_groups: int, tied_bytes: int) -> None:
    block, row, column = draw(seed, num_columns)
    group = np.random.default_rng(seed + 1).integers(0, num_groups, num_columns)
    values, groups = torch.from_numpy(block), group_columns(group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lupctl.core.ranking.metrics.ordering.TIED_BYTES", tied_bytes)
        plain = ranks_of(values, row, column, ordered=sorted_values(values))
        ordered = sorted_groups(values, groups, scratch=Scratch())
        overall, within = ranks_in_groups(values, row, column, ordered=ordered, groups=groups)
    pairs = list(zip(row.tolist(), column.tolist(), strict=True))
    assert plain.tolist() == [walk(block, one, other, np.arange(num_columns)) for one, other in pairs]
    assert overall.tolist() == plain.tolist()
    assert within.tolist() == [walk(block, one, other, np.flatnonzero(group == group[other])) for one, other in pairs]


def test_no_entry_has_no_rank() -> None:
    nothing = np.zeros(0, np.int64)
    assert ranks_of(torch.zeros(2, 3), nothing, nothing, ordered=torch.zeros(2, 3)).shape == (0,)
    empty = torch.zeros(0, dtype=torch.int64)
    assert counts_below(torch.zeros(2, 3), empty, torch.zeros(0), first=0, end=3).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 70))
def test_counts_below_are_those_of_a_loop(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    first, end = np.sort(rng.integers(0, width + 1, 2)).tolist()
    ordered = np.sort(rng.integers(0, 9, (4, width)), axis=1).astype(np.float32)
    row, value = rng.integers(0, 4, 20), rng.integers(-1, 10, 20).astype(np.float32)
    found = counts_below(
        torch.from_numpy(ordered), torch.from_numpy(row), torch.from_numpy(value), first=first, end=end
    )
    assert found.tolist() == [int((ordered[row[at], first:end] < value[at]).sum()) for at in range(20)]


@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.25, 0.75), (-1.0000002, -0.5), (0.999, 1.0000002)])
def test_pairs_are_counted_wherever_they_lie(ends: tuple[float, float], num_groups: int) -> None:
    rng = np.random.default_rng(0)
    block = rng.uniform(*ends, (9, 31)).astype(np.float32)
    block[:, 0], block[:, 1] = ends
    block[2, 5:] = np.inf
    block[7] = np.inf
    half = np.array([0, 1] * 4 + [0])
    counter = PairCounter(half)
    none = np.zeros(0, np.int64)
    values, groups = torch.from_numpy(block), group_columns(np.arange(31) % num_groups)
    for start, stop in ((0, 4), (4, 9)):
        some = values[start:stop]
        ordered = sorted_groups(some, groups)
        counter(
            RankedBlock(
                start=start, block=some, ordered=ordered, groups=groups, row=none, column=none, rank_in_group=none
            )
        )
    # As the distances come, -cos: rounding may carry one beyond the last edge, where it still counts.
    edges = np.append((EDGES - 1).astype(np.float32)[:-1], np.float32(2))
    for which in (0, 1):
        own = block[half == which]
        assert counter.counts().different[which].tolist() == [int((own <= edge).sum()) for edge in edges]
    assert counter.counts().different[:, -1].sum() == 9 * 31 - 26 - 31
