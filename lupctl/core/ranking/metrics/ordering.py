"""Ranks of single entries within their rows, from sorted values without their indices.

Sorting values costs a fraction of an argsort; if an entry is tied, the equal values before it are counted.
"""

import itertools
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.vectors import Scratch

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


def group_columns(group: NDArray[np.int64]) -> ColumnGroups:
    """Groups from the group number of each column.

    >>> group_columns(np.array([1, 0, 1])).columns.tolist()
    [1, 0, 2]
    """
    edge = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return ColumnGroups(group=group, columns=np.argsort(group, kind="stable"), edge=edge)


def sorted_values(block: Tensor, *, scratch: Scratch | None = None) -> Tensor:
    """The values of each row, ascending: (B, G); in `scratch` if given."""
    if block.device.type == "cpu":
        # numpy sorts float32 with vector instructions, about ten times faster than torch, which also sorts indices.
        ordered = (scratch or Scratch()).take(block.shape, block.device).copy_(block)
        values = ordered.numpy()
        _in_threads(len(values), lambda start, stop: values[start:stop].sort(axis=1))
        return ordered
    return torch.sort(block, dim=1).values


def sorted_groups(
    block: Tensor, groups: ColumnGroups, wanted: Collection[int], *, scratch: Scratch | None = None
) -> Tensor:
    """The values of each row, group after group, ascending within the `wanted` groups: (B, G)."""
    ordered = (scratch or Scratch()).take(block.shape, block.device)
    ranges = [(groups.edge[group], groups.edge[group + 1]) for group in wanted]
    if block.device.type != "cpu":
        torch.index_select(block, 1, torch.from_numpy(groups.columns).to(block.device), out=ordered)
        for first, end in ranges:
            ordered[:, first:end] = torch.sort(ordered[:, first:end], dim=1).values
        return ordered
    values, result = block.numpy(), ordered.numpy()

    def gather_and_sort(start: int, stop: int) -> None:
        # All indices are valid; "clip" keeps numpy from gathering into a copy first.
        np.take(values[start:stop], groups.columns, axis=1, out=result[start:stop], mode="clip")
        for first, end in ranges:
            result[start:stop, first:end].sort(axis=1)

    _in_threads(len(values), gather_and_sort)
    return ordered


def ranks_of(
    block: Tensor,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    *,
    ordered: Tensor | None = None,
    groups: ColumnGroups | None = None,
) -> NDArray[np.int64]:
    """1-based ranks of single entries within their rows; equal values rank in column order.

    Args:
        block: (B, G) float32 without NaN, smaller is nearer.
        row: (P) int64.
        column: (P) int64.
        ordered: the sorted rows, if they are known already.
        groups: ranks are among the columns of the entry's group; `ordered` is then from `sorted_groups`.

    Returns:
        (P) int64.
    """
    if not len(row):
        return np.zeros(0, np.int64)
    rows, columns = (torch.from_numpy(some).to(block.device) for some in (row, column))
    value, first, end = block[rows, columns], torch.zeros_like(rows), torch.full_like(rows, block.shape[1])
    own = np.zeros(len(row), np.int64)
    if groups is not None:
        own = groups.group[column]
        first, end = (torch.from_numpy(groups.edge[some]).to(block.device) for some in (own, own + 1))
    if ordered is None:
        ordered = sorted_values(block) if groups is None else sorted_groups(block, groups, np.unique(own).tolist())
    below = counts_below(ordered, rows, value, first=first, end=end)
    # The entry itself follows the values below it; if its value occurs again after that, there is a tie.
    following = first + below + 1
    again = ordered[rows, following.clamp(max=ordered.shape[1] - 1)] == value
    tied = torch.nonzero(again & (following < end))[:, 0]
    rank = (below + 1).cpu().numpy()
    own_of_tied = own[tied.cpu().numpy()]
    for group in np.unique(own_of_tied).tolist():
        some = tied[torch.from_numpy(own_of_tied == group).to(block.device)]
        among = None if groups is None else torch.from_numpy(groups.members(group)).to(block.device)
        rank[some.cpu().numpy()] += _equal_before(block, rows[some], columns[some], among=among).cpu().numpy()
    return rank


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


def counts_below(ordered: Tensor, row: Tensor, value: Tensor, *, first: Tensor, end: Tensor) -> Tensor:
    """Number of values below a given one in a sorted range of its row; one binary search for all at once.

    Args:
        ordered: (B, G), contiguous; ascending from `first` to `end`.
        row: (P) int64.
        value: (P).
        first: (P) int64, the first position of the range.
        end: (P) int64, the position after the last.

    Returns:
        (P) int64.
    """
    if not len(row):
        return torch.zeros_like(row)
    start = row * ordered.shape[1]
    begin, stop = start + first, start + end
    # The last position known to have a smaller value; steps of halving length lead to the last such position.
    reached = begin - 1
    step = 1 << int((end - first).max()).bit_length()
    while step := step >> 1:
        ahead = reached + step
        is_below = (ordered.take(torch.minimum(ahead, stop - 1)) < value) & (ahead < stop)
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
