"""Ranks of single entries within their rows, from sorted values without their indices.

Sorting values costs a fraction of an argsort; if an entry is tied, the equal values before it are counted.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.columns import Pieces
from lupctl.core.ranking.metrics.vectors import Scratch
from lupctl.core.system.threads.rows import map_row_ranges

# Rows that are gathered and sorted at once: those of the largest test sets take 2 MB.
ROWS_AT_ONCE = 8
# Rows that are searched at once: each searches for as many entries as the one with most.
SEARCHED_AT_ONCE = 32
# Entries times pieces that are searched for at once; each takes 65 bytes.
MAX_SEARCHES = 1 << 18
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
    sort(block, pieces, out=made)
    return made


def _sort_by_numpy(block: Tensor, pieces: Pieces, *, out: Tensor) -> None:
    """Sorts with vector instructions, about ten times faster than torch, which also sorts indices."""
    values, ordered = block.numpy(), out.numpy()
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

    map_row_ranges(len(values), work)


def _sort_by_torch(block: Tensor, pieces: Pieces, *, out: Tensor) -> None:
    slots = block.index_select(1, torch.from_numpy(pieces.columns).to(block.device))
    slots[:, torch.from_numpy(pieces.empty).to(block.device)] = torch.inf
    torch.sort(slots.view_as(out), dim=2, out=(out, torch.empty_like(out, dtype=torch.int64)))


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
    number = np.arange(len(row)) - first[row]
    assert (number >= 0).all(), "entries come row after row"
    search = _Search(block, row=row, column=column, number=number, pieces=pieces)
    all_below, own_below = (torch.zeros(len(row), dtype=torch.int64, device=block.device) for _ in range(2))
    all_tied, own_tied = (torch.zeros(len(row), dtype=torch.bool, device=block.device) for _ in range(2))
    most = max(1, MAX_SEARCHES // len(pieces))
    size = max(1, min(SEARCHED_AT_ONCE, most // int(count.max())))
    for start in range(0, len(block), size):
        stop = min(start + size, len(block))
        for low in range(0, int(count[start:stop].max()), most):
            some = first[start] + np.flatnonzero(number[first[start] : first[stop]] // most == low // most)
            entries = torch.from_numpy(some).to(block.device)
            found = search(ordered[start:stop], entries, start=start, low=low)
            all_below[entries], own_below[entries], all_tied[entries], own_tied[entries] = found
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
        number: (P) int64, of each entry within its row, counted from 0.
    """

    def __init__(
        self,
        block: Tensor,
        *,
        row: NDArray[np.int64],
        column: NDArray[np.int64],
        number: NDArray[np.int64],
        pieces: Pieces,
    ) -> None:
        self.row, self.column, self._number, self._piece, self._group, self._piece_group = (
            torch.from_numpy(some).to(block.device)
            for some in (row, column, number, pieces.piece[column], pieces.groups.group[column], pieces.group)
        )
        self._value = block[self.row, self.column]
        self._each_piece = torch.arange(len(pieces), device=block.device)

    def __call__(
        self, ordered: Tensor, entries: Tensor, *, start: int, low: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Searches some rows for some of their entries.

        Args:
            ordered: (b, S, W) of the rows from `start` on.
            entries: (p) int64, which ones.
            start: the first row.
            low: the lowest number within their rows.

        Returns:
            (p) each: values below the entry in all columns and in those of its group, int64, and whether another value
            is equal to it there. Of an infinite entry an empty slot may be that other.
        """
        rows, count, width = ordered.shape
        row, value, number = self.row[entries] - start, self._value[entries], self._number[entries] - low
        wanted = ordered.new_full((rows, int(number.max()) + 1), torch.inf)
        wanted[row, number] = value
        everywhere = wanted[:, None].expand(-1, count, -1).contiguous()
        below = torch.searchsorted(ordered, everywhere, out_int32=True)[row, :, number]  # (p, S)
        # In its own piece an entry follows the values below it; if the next value is equal too, it is tied.
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
