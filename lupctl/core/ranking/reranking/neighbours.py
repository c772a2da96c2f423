"""The nearest rows of every row of a pool, and the cosine of the farthest, in one pass over all pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lupctl.core.ranking.metrics.ranking import chunk_ranges, pick_chunk
from lupctl.core.ranking.metrics.vectors import Scratch, UnitRows, exact_float32
from lupctl.core.system.threads.round_robin import run_round_robin

# Rows that are sorted at once when a tie crosses the end of the part that is kept.
TIED_ROWS = 64
# Vectors that are searched for at once, in one pass over the gallery.
SEARCH_ROWS = 1024


@dataclass(frozen=True)
class Neighbours:
    """The part of the N x N cosines that re-ranking needs.

    Args:
        index: (N, K) int64, the K nearest rows of each row, nearest first; a row is its own neighbour.
        cosine: (N, K) float32, their cosines.
        least: (N) float32, cosine of the farthest row of the pool.
    """

    index: Tensor
    cosine: Tensor
    least: Tensor


def find_neighbours(
    pool: UnitRows,
    *,
    count: int,
    others: Sequence[UnitRows] = (),
    chunk: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    """The `count` nearest rows of every row by exact search; equal cosines keep the order of the pool.

    A k-nearest index would need a second pass for the farthest row, so one matrix product serves both.

    Args:
        pool: N rows.
        count: K, cut to N.
        others: the same rows on other devices; all devices take turns with the chunks.
        chunk: rows at a time; memory is one (chunk, N) block per device.
        advance: called after each chunk with its number of rows.

    Returns:
        On the device of `pool`.
    """
    ranges = list(chunk_ranges(len(pool), chunk or pick_chunk(len(pool))))
    workers = [_neighbour_finder(rows, min(count, len(pool))) for rows in (pool, *others)]
    parts = []
    # The threads of all devices share this setting, so it is set once around them.
    with exact_float32(pool.device):
        for part in run_round_robin(workers, ranges):
            parts.append([column.to(pool.device) for column in part])
            if advance is not None:
                advance(len(part[0]))
    index, cosine, least = (torch.cat(column) for column in zip(*parts, strict=True))
    return Neighbours(index=index, cosine=cosine, least=least)


def _neighbour_finder(pool: UnitRows, count: int) -> Callable[[int, int], tuple[Tensor, Tensor, Tensor]]:
    scratch = Scratch()

    def find(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        block = pool.cosines(pool.unit(start, stop), scratch=scratch)
        cosine, index = nearest_columns(block, count)
        return index, cosine, block.amin(dim=1)

    return find


def find_nearest(gallery: UnitRows, units: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest rows of a gallery for some unit vectors by exact search; equal cosines keep its order.

    Both are processed in parts, so memory beyond the result grows neither with the gallery nor with the vectors.

    Args:
        gallery: G rows, at least one.
        units: (Q, D).
        count: K, cut to G.

    Returns:
        (Q, K) cosines, largest first, and (Q, K) int64 rows.
    """
    scratch, found = Scratch(), []
    for start, stop in chunk_ranges(len(units), SEARCH_ROWS):
        best = units.new_zeros(stop - start, 0), torch.zeros(stop - start, 0, dtype=torch.int64, device=units.device)
        for first, last in chunk_ranges(len(gallery), pick_chunk(stop - start)):
            block = gallery.cosines(units[start:stop], first=first, last=last, scratch=scratch)
            value, column = nearest_columns(block, min(count, last - first))
            # Rows found before come first, so that a tie goes to the earlier one.
            both = torch.cat([best[0], value], dim=1), torch.cat([best[1], column + first], dim=1)
            value, position = nearest_columns(both[0], min(count, both[0].shape[1]))
            best = value, both[1].gather(1, position)
        found.append(best)
    cosine, row = (torch.cat(column) for column in zip(*found, strict=True))
    return cosine, row


def nearest_columns(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values of each row, largest first; equal values in column order.

    Args:
        block: (B, N) without NaN.
        count: K, at most N.

    Returns:
        (B, K) values, (B, K) int64 columns.
    """
    value, column = block.topk(min(count + 1, block.shape[1]), dim=1)
    # If the first value left out equals the last one kept, topk kept an arbitrary one of them.
    torn = torch.nonzero((value[:, count - 1 : count] == value[:, count:]).any(dim=1))[:, 0]
    column, by_column = column[:, :count].sort(dim=1)
    value, by_value = value[:, :count].gather(1, by_column).neg().sort(dim=1, stable=True)
    value, column = value.neg(), column.gather(1, by_value)
    for start, stop in chunk_ranges(len(torn), TIED_ROWS):
        some = torn[start:stop]
        ordered, order = block[some].neg().sort(dim=1, stable=True)
        value[some], column[some] = ordered[:, :count].neg(), order[:, :count]
    return value, column
