"""Ranks of single entries within their rows, from sorted values without their indices.

Sorting values costs a fraction of an argsort; if an entry is tied, the equal values before it are counted.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.columns import Pieces
from lupctl.core.ranking.metrics.vectors import Scratch

# Rows that are gathered and sorted at once: those of the largest test sets take 2 MB.
ROWS_AT_ONCE = 8
# Rows that are searched at once: each searches for as many entries as the one with most.
SEARCHED_AT_ONCE = 32
# Entries times pieces that are searched for at once.
MAX_SEARCHES = 1 << 20
# Memory for rows that are compared at once to resolve ties.
TIED_BYTES = 16 << 20


def sort_pieces(block: Tensor, pieces: Pieces, *, scratch: Scratch | None = None) -> Tensor:
    """The values of each row, ascending within each piece; empty slots are infinite and last.

    Args:
        block: (B, G) float32 without NaN.
        pieces: of the columns.
        scratch: holds the result if given.

    Returns:
        (B, S, W) float32.
    """
    made = (scratch or Scratch()).take((len(block), len(pieces), pieces.width), block.device)
    sort = _sort_by_numpy if block.device.type == "cpu" else _sort_by_torch
    sort(block, pieces, made)
    return made


def _sort_by_numpy(block: Tensor, pieces: Pieces, made: Tensor) -> None:
    """Sorts with vector instructions, about ten times faster than torch, which also sorts indices."""
    values, ordered = block.numpy(), made.numpy()
    slots = ordered.reshape(len(values), -1)
    is_whole = len(pieces.groups.sizes) == 1

    def work(start: int, stop: int) -> None:
        for top in range(start, stop, ROWS_AT_ONCE):
            rows = slice(top, min(top + ROWS_AT_ONCE, stop))
            if is_whole:
                slots[rows, : values.shape[1]] = values[rows]
            else:
                # All indices are valid; "clip" keeps numpy from gathering into a copy first.
                np.take(values[rows], pieces.columns, axis=1, out=slots[rows], mode="clip")
            slots[rows, pieces.empty] = np.inf
            ordered[rows].sort(axis=2)

    in_threads(len(values), work)


def _sort_by_torch(block: Tensor, pieces: Pieces, made: Tensor) -> None:
    slots = block.index_select(1, torch.from_numpy(pieces.columns).to(block.device))
    slots[:, torch.from_numpy(pieces.empty).to(block.device)] = torch.inf
    made.copy_(torch.sort(slots.view_as(made), dim=2).values)


def ranks_in_groups(
    block: Tensor, row: NDArray[np.int64], column: NDArray[np.int64], *, ordered: Tensor, pieces: Pieces
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1-based ranks of single entries within their rows, among all columns and among those of their own group.

    Args:
        block: (B, G) float32 without NaN, smaller is nearer; equal values rank in column order.
        row: (P) int64, ascending.
        column: (P) int64.
        ordered: (B, S, W), the same from `sort_pieces`.
        pieces: of the columns.

    Returns:
        Two of (P) int64.
    """
    if not len(row):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    count = np.bincount(row, minlength=len(block))
    first = np.append(0, np.cumsum(count))
    search = _Search(block, row, column, row_entry=np.arange(len(row)) - first[row], pieces=pieces)
    size = max(1, min(SEARCHED_AT_ONCE, MAX_SEARCHES // (len(pieces) * int(count.max()))))
    found = []
    for start in range(0, len(block), size):
        rows = slice(start, min(start + size, len(block)))
        entries = slice(int(first[rows.start]), int(first[rows.stop]))
        found.append(search(ordered[rows], rows.start, entries, most=int(count[rows].max())))
    all_below, own_below, all_tied, own_tied = (torch.cat(some) for some in zip(*found, strict=True))
    overall, within = (all_below + 1).cpu().numpy(), (own_below + 1).cpu().numpy()
    tied = torch.nonzero(all_tied)[:, 0]
    if len(tied):
        overall[tied.cpu().numpy()] += _equal_before(block, search.row[tied], search.column[tied], among=None)
    own = pieces.groups.group[column]
    for group in np.unique(own[own_tied.cpu().numpy()]).tolist():
        some = torch.nonzero(own_tied & torch.from_numpy(own == group).to(block.device))[:, 0]
        among = torch.from_numpy(pieces.groups.members(group)).to(block.device)
        within[some.cpu().numpy()] += _equal_before(block, search.row[some], search.column[some], among=among)
    return overall, within


class _Search:
    """Finds entries among the sorted values of their rows.

    Args:
        block, row, column, pieces: as for `ranks_in_groups`.
        row_entry: (P) int64, number of each entry within its row.
    """

    def __init__(
        self,
        block: Tensor,
        row: NDArray[np.int64],
        column: NDArray[np.int64],
        *,
        row_entry: NDArray[np.int64],
        pieces: Pieces,
    ) -> None:
        device = block.device
        self.row, self.column, self._entry, self._piece, self._group, piece_group = (
            torch.from_numpy(some).to(device)
            for some in (row, column, row_entry, pieces.piece[column], pieces.groups.group[column], pieces.group)
        )
        self._value = block[self.row, self.column]
        self._each_piece, self._piece_group = torch.arange(len(pieces), device=device), piece_group

    def __call__(
        self, ordered: Tensor, start: int, entries: slice, *, most: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Entries of the rows from `start` on, whose sorted values are (b, S, W); a row has at most `most` entries.

        Returns:
            (p) each: values below it in all columns and in those of its group, int64, and whether another is equal.
        """
        rows, count, width = ordered.shape
        row, value = self.row[entries] - start, self._value[entries]
        wanted = ordered.new_full((rows, most), torch.inf)
        wanted[row, self._entry[entries]] = value
        everywhere = wanted[:, None].expand(-1, count, -1).contiguous()
        below = torch.searchsorted(ordered, everywhere, out_int32=True)[row, :, self._entry[entries]]  # (p, S)
        # An entry itself follows the values below it in its piece; where its value stands there besides, it is tied.
        following = below + (self._piece[entries, None] == self._each_piece)
        place = (row[:, None] * count + self._each_piece) * width + following.clamp(max=width - 1)
        is_again = (ordered.view(-1).take(place) == value[:, None]) & (following < width)
        is_own = self._group[entries, None] == self._piece_group
        return below.sum(1), (below * is_own).sum(1), is_again.any(1), (is_again & is_own).any(1)


def _equal_before(block: Tensor, rows: Tensor, columns: Tensor, *, among: Tensor | None) -> NDArray[np.int64]:
    """Number of equal values before each of (P) entries in its row, over all columns or those in `among`."""
    position = torch.arange(block.shape[1], device=block.device) if among is None else among
    size = max(1, TIED_BYTES // (4 * block.shape[1]))
    counts = []
    for start in range(0, len(rows), size):
        row, column = rows[start : start + size], columns[start : start + size]
        near = block[row] if among is None else block[row[:, None], among]
        counts.append(((near == block[row, column][:, None]) & (position < column[:, None])).sum(dim=1))
    before: NDArray[np.int64] = torch.cat(counts).cpu().numpy()
    return before


def in_threads(num_rows: int, work: Callable[[int, int], Any]) -> list[Any]:
    """What `work` makes of ranges of rows, in as many threads as torch uses; numpy lets them run in parallel."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, num_rows)]
    edges = np.linspace(0, num_rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(work, *some) for some in itertools.pairwise(edges)]]
