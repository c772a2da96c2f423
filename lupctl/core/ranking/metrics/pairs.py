"""Distances of same-person and different-person pairs, counted while queries are ranked.

A pair is a query and a gallery image. All pairs count except those the protocol ignores: junk, and the query's person
seen by the query's camera. Distances are 1 - cos, and counts are kept at steps of 0.001, so memory does not depend on
the number of pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.ranking import RankedBlock
from lupctl.core.system.threads.rows import map_row_ranges

STEP = 0.001
# Cosine distances are in [0, 2].
EDGES: NDArray[np.float64] = np.arange(2001, dtype=np.float64) * STEP
HALVES = 2
# The edges of -cos = d - 1, as float32 has them. Rounding may push a pair beyond the last one, where it still counts.
LIMITS: NDArray[np.float32] = np.append((EDGES[:-1] - 1).astype(np.float32), np.float32(2))
# A bin for each edge: distances up to it and above the edge before. One more is for pairs that do not count.
BINS = len(LIMITS) + 1
# A float32 of this size has no fraction, so that adding it rounds to a whole number, which is then in the last bits.
WHOLE = np.float32(1.5 * 2**23)
# Rows and columns that are counted at once, with 17 bytes for each value: they stay in the cache.
TILE = (8, 4096)


@dataclass(frozen=True)
class PairCounts:
    """Number of pairs whose distance is at most each edge.

    Args:
        same: (2, 2001) int64, same-person pairs, by half of the queries' persons; the last column counts all.
        different: (2, 2001) int64, different-person pairs.
    """

    same: NDArray[np.int64]
    different: NDArray[np.int64]


class PairCounter:
    """Counts pairs; a watcher of `rank_queries`, whose distances must be -cos.

    Args:
        half: (Q) the half that each query's person belongs to, 0 or 1.
    """

    def __init__(self, half: NDArray[np.int64]) -> None:
        self._half = half
        self._all = np.zeros((HALVES, len(EDGES)), np.int64)
        self._same = np.zeros((HALVES, len(EDGES)), np.int64)

    def __call__(self, seen: RankedBlock) -> None:
        """Adds the pairs of one chunk."""
        half = self._half[seen.start : seen.start + len(seen.block)]
        self._all += _up_to_edges(_count_bins(seen.block, half))
        rows, columns = (torch.from_numpy(some).to(seen.block.device) for some in (seen.row, seen.column))
        first = np.searchsorted(LIMITS, seen.block[rows, columns].cpu().numpy())
        self._same += _up_to_edges(np.bincount(half[seen.row] * BINS + first, minlength=HALVES * BINS))

    def counts(self) -> PairCounts:
        """The counts over all chunks."""
        return PairCounts(same=self._same, different=self._all - self._same)


def _count_bins(block: Tensor, half: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many distances of each half are in each bin: (2 * BINS) int64.

    Args:
        block: (B, G) float32, -cos; infinite where a pair does not count.
        half: (B) int64, 0 or 1.
    """
    if block.device.type != "cpu":
        return _count_by_search(block, half)
    values = block.numpy()
    counts = map_row_ranges(len(values), lambda start, stop: _count_by_arithmetic(values[start:stop], half[start:stop]))
    total: NDArray[np.int64] = np.sum(counts, axis=0)
    return total


def _count_by_search(block: Tensor, half: NDArray[np.int64]) -> NDArray[np.int64]:
    bins = torch.bucketize(block, torch.from_numpy(LIMITS).to(block.device), out_int32=True)
    bins += torch.from_numpy((half * BINS).astype(np.int32)).to(block.device)[:, None]
    return torch.bincount(bins.view(-1), minlength=HALVES * BINS).cpu().numpy()


def _count_by_arithmetic(values: NDArray[np.float32], half: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same in a tenth of the time that a search takes on a CPU.

    Rounding gives the edge that is nearest to a distance, or nearly so. The distance goes into that edge's bin or, if
    it is larger than the edge, into the next: an infinite one into the bin after the last edge.
    """
    total = np.zeros(HALVES * BINS, np.int64)
    limits, scale = np.tile(np.append(LIMITS, np.float32(np.inf)), HALVES), np.float32(1 / STEP)
    for top in range(0, len(values), TILE[0]):
        rows = slice(top, top + TILE[0])
        zero = WHOLE.view(np.int32) - half[rows, None] * BINS
        for left in range(0, values.shape[1], TILE[1]):
            some = values[rows, left : left + TILE[1]]
            scaled = np.clip(some, np.float32(-1), np.float32(1))
            scaled *= scale
            scaled += WHOLE + scale
            bins = scaled.view(np.int32) - zero
            bins += some > limits.take(bins)
            total += np.bincount(bins.ravel(), minlength=len(total))
    return total


def _up_to_edges(bins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of bins to counts up to each edge, (2, 2001)."""
    counts: NDArray[np.int64] = bins.reshape(HALVES, BINS)[:, : len(EDGES)].cumsum(axis=1)
    return counts


def split_persons(person: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """Random halves of the persons: 0 or 1 for each of (Q) images; the first half is never the smaller one.

    >>> split_persons(np.array([5, 5, 7, 9]), seed=0).tolist()
    [0, 0, 1, 0]
    """
    numbers, label = np.unique(person, return_inverse=True)
    half = np.zeros(len(numbers), np.int64)
    half[np.random.default_rng(seed).permutation(len(numbers))[(len(numbers) + 1) // 2 :]] = 1
    halves: NDArray[np.int64] = half[label]
    return halves
