"""CMC with a single gallery shot: one image a person, drawn again and again (the classic CUHK03 and VIPeR protocol)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR
from lupctl.core.metrics.ranking import RankedBlock
from lupctl.core.metrics.scores import CMC_RANKS


@dataclass(frozen=True)
class ShotScores:
    """CMC over the valid queries, averaged over the draws.

    Args:
        cmc: by rank; ends at the number of persons in the gallery.
        rank1_range: lowest and highest rank-1 of a single draw.
    """

    cmc: dict[int, float]
    rank1_range: tuple[float, float]


class ShotCounter:
    """Draws one image of every person for every query, as a watcher of `rank_queries`.

    The right answer is drawn from those that count; every other person from all of their images. Each distractor stands
    for a person of its own. Each draw has its own generator, which runs through the queries in order, so the result
    does not depend on the chunks.

    Args:
        gallery_person: (G).
        draws: how often.
        seed: of the draws.
    """

    def __init__(self, gallery_person: NDArray[np.int64], *, draws: int, seed: int) -> None:
        # Distractors get numbers that no person has.
        label = gallery_person.copy()
        nobody = np.flatnonzero(label == DISTRACTOR)
        label[nobody] = label.max(initial=0) + 1 + np.arange(len(nobody))
        _, self._label, self._count = np.unique(label, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._label, kind="stable")
        self._first = np.cumsum(self._count) - self._count
        self._draws = [np.random.default_rng((seed, draw)) for draw in range(draws)]
        self._right_draws = [np.random.default_rng((seed, draw, 1)) for draw in range(draws)]
        self._ranks: list[list[NDArray[np.int64]]] = [[] for _ in range(draws)]

    def __call__(self, seen: RankedBlock) -> None:
        """Adds one chunk."""
        distance = seen.block.cpu().numpy()
        rows, first, count = np.unique(seen.row, return_index=True, return_counts=True)
        for draw, (others, rights) in enumerate(zip(self._draws, self._right_draws, strict=True)):
            # Rows without a right answer draw as well: what a query draws does not depend on its neighbours.
            shot = others.random((len(distance), len(self._count)))
            own = rights.random(len(distance))[rows]
            picked = self._order[self._first + (shot[rows] * self._count).astype(np.int64)]
            right = seen.column[first + (own * count).astype(np.int64)]
            apart, limit = np.take_along_axis(distance[rows], picked, axis=1), distance[rows, right][:, None]
            is_before = (apart < limit) | ((apart == limit) & (picked < right[:, None]))
            is_before[np.arange(len(rows)), self._label[right]] = False
            self._ranks[draw].append(1 + is_before.sum(axis=1))

    def scores(self) -> ShotScores:
        """What has been drawn, over at least one valid query."""
        ranks = np.stack([np.concatenate(parts) for parts in self._ranks])
        rank1 = (ranks == 1).mean(axis=1)
        return ShotScores(
            cmc={rank: float((ranks <= rank).mean()) for rank in CMC_RANKS if rank <= len(self._count)},
            rank1_range=(float(rank1.min()), float(rank1.max())),
        )
