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

from lupctl.core.ranking.metrics.ordering import counts_below
from lupctl.core.ranking.metrics.ranking import RankedBlock

STEP = 0.001
# Cosine distances are in [0, 2].
EDGES: NDArray[np.float64] = np.arange(2001, dtype=np.float64) * STEP
HALVES = 2


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
        # Distances are -cos = d - 1; rounding may push a pair beyond the ends, where it still counts.
        edges = (EDGES - 1).astype(np.float32)
        edges[-1] = 2
        self._edges = edges
        self._all = np.zeros((HALVES, len(edges)), np.int64)
        self._same = np.zeros((HALVES, len(edges)), np.int64)

    def __call__(self, seen: RankedBlock) -> None:
        """Adds the pairs of one chunk."""
        half = self._half[seen.start : seen.start + len(seen.block)]
        for begin, end in seen.groups.ranges():
            self._add_all(seen.ordered, half, begin, end)
        rows, columns = (torch.from_numpy(some).to(seen.block.device) for some in (seen.row, seen.column))
        first = np.searchsorted(self._edges, seen.block[rows, columns].cpu().numpy())
        for which in range(HALVES):
            chosen = first[half[seen.row] == which]
            self._same[which] += np.bincount(chosen, minlength=len(self._edges)).cumsum()

    def counts(self) -> PairCounts:
        """The counts over all chunks."""
        return PairCounts(same=self._same, different=self._all - self._same)

    def _add_all(self, ordered: Tensor, half: NDArray[np.int64], begin: int, end: int) -> None:
        """Adds the pairs with the images of one group, whose values are in these columns."""
        row = torch.arange(len(ordered), device=ordered.device)
        infinite = ordered.new_full((len(row),), torch.inf)
        count = counts_below(ordered, row, infinite, first=begin, end=end)
        # Most edges are below the nearest or beyond the farthest pair, where there is nothing to search for.
        farthest = float(ordered[row, begin + (count - 1).clamp(min=0)].max())
        start, stop = np.searchsorted(self._edges, [float(ordered[:, begin].min()), farthest]).tolist()
        below = self._counts_up_to(ordered[:, begin:end], self._edges[start:stop], half)
        num_pairs = count.cpu().numpy()
        for which in range(HALVES):
            self._all[which, start:stop] += below[which]
            self._all[which, stop:] += num_pairs[half == which].sum()

    def _counts_up_to(self, ordered: Tensor, edges: NDArray[np.float32], half: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values up to each edge, by half: (2, edges)."""
        total = np.zeros((HALVES, len(edges)), np.int64)
        if ordered.device.type == "cpu":
            # Sorted edges among sorted values: each search starts where the last one ended, 30 us for 16,000 values.
            for which, values in zip(half.tolist(), ordered.numpy(), strict=True):
                total[which] += values.searchsorted(edges, side="right")
            return total
        wanted = torch.from_numpy(edges).to(ordered.device).expand(len(ordered), -1).contiguous()
        below = torch.searchsorted(ordered, wanted, right=True).cpu().numpy()
        for which in range(HALVES):
            total[which] = below[half == which].sum(axis=0)
        return total


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
