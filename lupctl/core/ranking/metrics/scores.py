"""Scores of a whole query set from the ranking of each query."""

from dataclasses import dataclass

from lupctl.core.ranking.metrics.ranking import Ranking

CMC_RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Scores:
    """Retrieval scores as fractions.

    Args:
        map: mean average precision by the step rule over the valid queries; what most papers report.
        map_official: mean average precision by the trapezoid rule over all queries, invalid ones counting 0; what the
            official Market-1501 evaluation reports.
        minp: mean over the valid queries of right answers / rank of the last (Ye et al. 2021, arXiv 2001.04193).
        cmc: share of the valid queries with a right answer among the first k, by k; ends at the size of the gallery.
    """

    map: float
    map_official: float
    minp: float
    cmc: dict[int, float]


def compute_scores(ranking: Ranking, *, num_gallery: int) -> Scores:
    """Scores of a ranking with at least one valid query.

    Args:
        ranking: Q queries.
        num_gallery: ranked gallery images, where the CMC curve ends.

    Raises:
        ValueError: no query is valid.

    >>> import numpy as np
    >>> from lupctl.core.ranking.metrics.ranking import summarise_ranks
    >>> one_of_two = summarise_ranks(np.array([0]), np.array([2]), 2)
    >>> compute_scores(one_of_two, num_gallery=5)
    Scores(map=0.5, map_official=0.125, minp=0.5, cmc={1: 0.0, 5: 1.0})
    """
    valid = ranking.is_valid
    if not valid.any():
        raise ValueError("no query has a right answer")
    first_rank = ranking.first_rank[valid]
    return Scores(
        map=float(ranking.ap_step[valid].mean()),
        map_official=float(ranking.ap_trapezoid[valid].sum() / len(valid)),
        minp=float(ranking.inp[valid].mean()),
        cmc={rank: float((first_rank <= rank).mean()) for rank in CMC_RANKS if rank <= num_gallery},
    )
