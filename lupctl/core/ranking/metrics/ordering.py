"""Ranks of single entries within their rows, from sorted values without their indices.

Sorting values costs a fraction of an argsort; if an entry is tied, the equal values before it are counted.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.vectors import Scratch

# Rows that are gathered and sorted at once: those of the largest test sets take 2 MB.
ROWS_AT_ONCE = 8
# Memory for rows that are compared at once to resolve ties.
TIED_BYTES = 16 << 20


@dataclass(frozen=True)
class ColumnGroups:
    """Groups of columns; each column is ranked only among those of its group.

    Args:
        group: (G) int64, the group of each column, counted from 0.
        columns: (G) int64, all columns, group after group, ascending within each.
        edge: (C + 1) int64, where each group starts in `columns`, and where the last ends.
    """

    group: NDArray[np.int64]
    columns: NDArray[np.int64]
    edge: NDArray[np.int64]

    def members(self, group: int) -> NDArray[np.int64]:
        """The columns of a group, ascending."""
        return self.columns[self.edge[group] : self.edge[group + 1]]

    def ranges(self) -> list[tuple[int, int]]:
        """Where each group begins in `columns`, and where it ends."""
        return list(itertools.pairwise(self.edge.tolist()))


def group_columns(group: NDArray[np.int64]) -> ColumnGroups:
    """Groups from the group number of each column.

    >>> group_columns(np.array([1, 0, 1])).columns.tolist()
    [1, 0, 2]
    """
    edge = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return ColumnGroups(group=group, columns=np.argsort(group, kind="stable"), edge=edge)


def one_group(num_columns: int) -> ColumnGroups:
    """All columns in one group."""
    return group_columns(np.zeros(num_columns, np.int64))


def sorted_values(block: Tensor, *, scratch: Scratch | None = None) -> Tensor:
    """The values of each row, ascending: (B, G); in `scratch` if given."""
    if block.device.type != "cpu":
        return torch.sort(block, dim=1).values

    # numpy sorts float32 with vector instructions, about ten times faster than torch, which also sorts indices.
    def copy_and_sort(values: NDArray[np.float32], result: NDArray[np.float32]) -> None:
        result[:] = values
        result.sort(axis=1)

    return _by_rows(block, copy_and_sort, scratch)


def sorted_groups(block: Tensor, groups: ColumnGroups, *, scratch: Scratch | None = None) -> Tensor:
    """The values of each row, group after group, ascending within each: (B, G); in `scratch` if given."""
    if block.device.type != "cpu":
        ordered = block.index_select(1, torch.from_numpy(groups.columns).to(block.device))
        for first, end in groups.ranges():
            ordered[:, first:end] = torch.sort(ordered[:, first:end], dim=1).values
        return ordered

    def gather_and_sort(values: NDArray[np.float32], result: NDArray[np.float32]) -> None:
        # All indices are valid; "clip" keeps numpy from gathering into a copy first.
        np.take(values, groups.columns, axis=1, out=result, mode="clip")
        for first, end in groups.ranges():
            result[:, first:end].sort(axis=1)

    return _by_rows(block, gather_and_sort, scratch)


def _by_rows(
    block: Tensor, fill: Callable[[NDArray[np.float32], NDArray[np.float32]], None], scratch: Scratch | None
) -> Tensor:
    """What `fill` makes of the block on a CPU, a few rows at a time, which stay in the cache: (B, G)."""
    made = (scratch or Scratch()).take(block.shape, block.device)
    values, result = block.numpy(), made.numpy()

    def work(start: int, stop: int) -> None:
        for top in range(start, stop, ROWS_AT_ONCE):
            end = min(top + ROWS_AT_ONCE, stop)
            fill(values[top:end], result[top:end])

    _in_threads(len(values), work)
    return made


def ranks_of(block: Tensor, row: NDArray[np.int64], column: NDArray[np.int64], *, ordered: Tensor) -> NDArray[np.int64]:
    """1-based ranks of single entries within their rows; equal values rank in column order.

    Args:
        block: (B, G) float32 without NaN, smaller is nearer.
        row: (P) int64.
        column: (P) int64.
        ordered: the same from `sorted_values`.

    Returns:
        (P) int64.
    """
    return ranks_in_groups(block, row, column, ordered=ordered, groups=one_group(block.shape[1]))[0]


def ranks_in_groups(
    block: Tensor, row: NDArray[np.int64], column: NDArray[np.int64], *, ordered: Tensor, groups: ColumnGroups
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1-based ranks of single entries within their rows, among all columns and among those of their own group.

    Args:
        block, row, column: as `ranks_of`.
        ordered: the same from `sorted_groups`.
        groups: of the columns.

    Returns:
        Two of (P) int64.
    """
    if not len(row):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns, own = (torch.from_numpy(some).to(block.device) for some in (row, column, groups.group[column]))
    value = block[rows, columns]
    all_below, own_below = torch.zeros_like(rows), torch.zeros_like(rows)
    all_tied, own_tied = torch.zeros_like(rows, dtype=torch.bool), torch.zeros_like(rows, dtype=torch.bool)
    for group, (first, end) in enumerate(groups.ranges()):
        below, is_own = counts_below(ordered, rows, value, first=first, end=end), own == group
        # An entry itself follows the values below it in its group; where its value stands there besides, it is tied.
        following = first + below + is_own
        is_again = ordered[rows, following.clamp(max=block.shape[1] - 1)] == value
        is_tied = is_again & (following < end)
        all_below += below
        own_below += below * is_own
        all_tied |= is_tied
        own_tied |= is_tied & is_own
    overall, within = (all_below + 1).cpu().numpy(), (own_below + 1).cpu().numpy()
    tied = torch.nonzero(all_tied)[:, 0]
    if len(tied):
        overall[tied.cpu().numpy()] += _equal_before(block, rows[tied], columns[tied], among=None).cpu().numpy()
    for group in np.unique(groups.group[column][own_tied.cpu().numpy()]).tolist():
        some = torch.nonzero(own_tied & (own == group))[:, 0]
        among = torch.from_numpy(groups.members(group)).to(block.device)
        within[some.cpu().numpy()] += _equal_before(block, rows[some], columns[some], among=among).cpu().numpy()
    return overall, within


def _equal_before(block: Tensor, rows: Tensor, columns: Tensor, *, among: Tensor | None) -> Tensor:
    """Number of equal values before each of (P) entries in its row, over all columns or those in `among`."""
    position = torch.arange(block.shape[1], device=block.device) if among is None else among
    size = max(1, TIED_BYTES // (4 * block.shape[1]))
    counts = []
    for start in range(0, len(rows), size):
        row, column = rows[start : start + size], columns[start : start + size]
        near = block[row] if among is None else block[row[:, None], among]
        counts.append(((near == block[row, column][:, None]) & (position < column[:, None])).sum(dim=1))
    return torch.cat(counts)


def counts_below(ordered: Tensor, row: Tensor, value: Tensor, *, first: int, end: int) -> Tensor:
    """Number of values below a given one in a sorted range of its row; one binary search for all at once.

    Args:
        ordered: (B, G), contiguous; ascending from `first` to `end`.
        row: (P) int64.
        value: (P).
        first: the first position of the range.
        end: the position after the last.

    Returns:
        (P) int64.
    """
    begin = row * ordered.shape[1] + first
    last = begin + (end - first - 1)
    # The last position known to have a smaller value; steps of halving length lead to the last such position.
    reached = begin - 1
    step = 1 << (end - first).bit_length()
    while step := step >> 1:
        ahead = reached + step
        is_below = (ordered.take(torch.minimum(ahead, last)) < value) & (ahead <= last)
        reached += step * is_below
    return reached + 1 - begin


def _in_threads(num_rows: int, work: Callable[[int, int], None]) -> None:
    """Calls `work` for ranges of rows, in as many threads as torch uses; numpy lets them run in parallel."""
    threads = torch.get_num_threads()
    if threads == 1:
        work(0, num_rows)
        return
    edges = np.linspace(0, num_rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, start, stop) for start, stop in itertools.pairwise(edges)]:
            done.result()
