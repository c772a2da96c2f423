"""CMC with a single gallery shot: one image per person, drawn repeatedly (the classic CUHK03 and VIPeR protocol)."""

import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, SameCamera
from lupctl.core.ranking.metrics.labels import ImageLabels, same_person_pairs
from lupctl.core.ranking.metrics.ranking import RankedBlock
from lupctl.core.ranking.metrics.scores import CMC_RANKS


@dataclass(frozen=True)
class ShotScores:
    """CMC over the valid queries of each draw, averaged over the draws.

    Args:
        cmc: by rank; ends at the number of persons in the gallery of a draw, distractors included.
        rank1_range: lowest and highest rank-1 of a single draw.
        persons: number of persons whose queries each draw tests.
    """

    cmc: dict[int, float]
    rank1_range: tuple[float, float]
    persons: int


class ShotCounter:
    """Draws one image of every person for every query; a watcher of `rank_queries`.

    The right answer is drawn from those that count; for every other person, an image is drawn from all of theirs. Each
    distractor counts as a separate person. Each draw has its own generators, which go through the queries in order, so
    the result does not depend on the chunks. If only some persons are tested, each draw chooses them first: the others
    are then neither among the queries nor in the gallery.

    Args:
        gallery_person: (G).
        draws: number of draws.
        seed: of the draws.
        candidates: persons with a valid query, ascending.
        tested: how many of them each draw tests; None tests all.
    """

    def __init__(
        self,
        gallery_person: NDArray[np.int64],
        *,
        draws: int,
        seed: int,
        candidates: NDArray[np.int64],
        tested: int | None = None,
    ) -> None:
        # Distractors get numbers that no person has.
        named = gallery_person.copy()
        distractors = np.flatnonzero(named == DISTRACTOR)
        named[distractors] = named.max(initial=0) + 1 + np.arange(len(distractors))
        numbers, self._label, self._count = np.unique(named, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._label, kind="stable")
        self._first = np.cumsum(self._count) - self._count
        self._draws = [np.random.default_rng((seed, draw)) for draw in range(draws)]
        self._right_draws = [np.random.default_rng((seed, draw, 1)) for draw in range(draws)]
        self._tested = len(candidates) if tested is None else tested
        # (draws, K) whether each person takes part; distractors always do.
        self._is_there = np.ones((draws, len(numbers)), np.bool_)
        if tested is not None:
            self._is_there[:, : len(numbers) - len(distractors)] = False
            for draw in range(draws):
                some = np.random.default_rng((seed, draw, 2)).choice(candidates, tested, replace=False)
                self._is_there[draw, np.searchsorted(numbers, some)] = True
        self._ranks: list[list[NDArray[np.int64]]] = [[] for _ in range(draws)]

    def __call__(self, seen: RankedBlock) -> None:
        """Adds one chunk."""
        distance = seen.block.cpu().numpy()
        rows, first, count = np.unique(seen.row, return_index=True, return_counts=True)
        for draw, (others, rights) in enumerate(zip(self._draws, self._right_draws, strict=True)):
            # Rows without a right answer draw as well, so that a query's draws do not depend on its neighbours.
            shot = others.random((len(distance), len(self._count)))
            own = rights.random(len(distance))[rows]
            picked = self._order[self._first + (shot[rows] * self._count).astype(np.int64)]
            right = seen.column[first + (own * count).astype(np.int64)]
            apart, limit = np.take_along_axis(distance[rows], picked, axis=1), distance[rows, right][:, None]
            is_before = (apart < limit) | ((apart == limit) & (picked < right[:, None]))
            is_before &= self._is_there[draw]
            person = self._label[right]
            is_before[np.arange(len(rows)), person] = False
            self._ranks[draw].append(1 + is_before[self._is_there[draw, person]].sum(axis=1))

    def scores(self) -> ShotScores:
        """The scores over all draws, with at least one valid query."""
        ranks = [np.concatenate(parts) for parts in self._ranks]
        rank1 = [float((some == 1).mean()) for some in ranks]
        return ShotScores(
            cmc={
                rank: statistics.fmean(float((some <= rank).mean()) for some in ranks)
                for rank in CMC_RANKS
                if rank <= int(self._is_there[0].sum())
            },
            rank1_range=(min(rank1), max(rank1)),
            persons=self._tested,
        )


def valid_persons(queries: ImageLabels, gallery: ImageLabels, *, same_camera: SameCamera) -> NDArray[np.int64]:
    """The persons with a query that has a right answer, ascending."""
    row, column = same_person_pairs(queries.person, gallery.person)
    if same_camera == "drop":
        row = row[queries.camera[row] != gallery.camera[column]]
    return np.unique(queries.person[row])
