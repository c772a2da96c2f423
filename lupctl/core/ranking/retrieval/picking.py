"""The few queries that a report shows, and what is kept of them while all are ranked."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.ranking import RankedBlock, Ranking

Ease = Literal["hardest", "easiest"]
HARDEST, EASIEST = 12, 6


def pick_queries(ranking: Ranking) -> list[tuple[Ease, int]]:
    """The queries with the lowest and the highest AP; among equally easy ones, those with more right answers."""
    valid = np.flatnonzero(ranking.is_valid)
    ap, right = ranking.ap_step[valid], ranking.num_right[valid]
    hardest = valid[np.lexsort((valid, ap))][:HARDEST]
    easiest = valid[np.lexsort((valid, -right, -ap))]
    picked: list[tuple[Ease, int]] = [("hardest", int(query)) for query in hardest]
    return picked + [("easiest", int(query)) for query in easiest if query not in hardest][:EASIEST]


class RowKeeper:
    """Keeps the distances of a few queries to the whole gallery; a watcher of `rank_queries`.

    Args:
        queries: their numbers.

    Attributes:
        rows: (G) distances by the number of the query; infinite where a pair counts neither way.
    """

    def __init__(self, queries: Sequence[int]) -> None:
        self._queries = sorted(queries)
        self.rows: dict[int, NDArray[Any]] = {}

    def __call__(self, seen: RankedBlock) -> None:
        for query in self._queries:
            if seen.start <= query < seen.start + len(seen.block):
                self.rows[query] = seen.block[query - seen.start].cpu().numpy().copy()
