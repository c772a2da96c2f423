"""Scores of a network on a site's pairs, before and after something, with intervals over its tracklets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.site.distances import SiteDistances, draw_weights

# The false match rates at which the share of recognised pairs is given.
SCORED_FPR: Final = (1e-2, 1e-3)
NAMES: Final = ("auc", "rank1", *(f"found_at_{wanted:g}" for wanted in SCORED_FPR))

Span = tuple[float, float]


@dataclass(frozen=True)
class SiteScores:
    """Scores by name, as fractions; what cannot be known of too few pairs is missing.

    `auc`: the share of the pairs of two pairs, one of one person and one of two, in which the former are nearer; as
    near, to steps of 0.001, counts half. `rank1`: the share of the images of first thirds, among tracklets that were
    seen together with others, whose nearest image is of their own tracklet. `found_at_R`: the share of the pairs of one
    person up to the largest distance that at most a share R of the pairs of two reaches.

    Args:
        scores: of all pairs.
        ci95: 95 % intervals over the tracklets.
    """

    scores: Mapping[str, float]
    ci95: Mapping[str, Span]


def score_site(found: SiteDistances, *, draws: int = DRAWS, seed: int = SEED) -> SiteScores:
    """The scores of a network on a site's pairs."""
    whole = site_scores(found)
    drawn = np.stack(
        [site_scores(found, weight) for weight in draw_weights(found.pairs.num_tracklets, draws=draws, seed=seed)]
    )
    return _name(whole, drawn)


def compare_site(before: SiteDistances, after: SiteDistances, *, draws: int = DRAWS, seed: int = SEED) -> SiteScores:
    """How much each score rose; an interval has both scores of every draw, as they belong to the same pairs."""
    weights = draw_weights(after.pairs.num_tracklets, draws=draws, seed=seed)
    drawn = [site_scores(after, weight) - site_scores(before, weight) for weight in weights]
    return _name(site_scores(after) - site_scores(before), np.stack(drawn))


def site_scores(found: SiteDistances, weight: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(S) the scores in the order of `NAMES`; NaN for those of too few pairs.

    Args:
        found: distances of the pairs.
        weight: (T) how often each tracklet counts; None counts each once. Of draws, a rate is given however few pairs
            of two persons they have.
    """
    same, different = found.counts(weight)
    right, tracklet = found.first_right
    times = np.ones(len(right)) if weight is None else weight[tracklet]
    scores = np.full(len(NAMES), np.nan)
    if same[-1] and different[-1]:
        own, before = np.diff(same, prepend=0), np.concatenate([[0], different[:-1]])
        below = (before + different) / 2
        scores[0] = 1 - (own * (below / different[-1])).sum() / same[-1]
        for place, wanted in enumerate(SCORED_FPR, start=2):
            if weight is not None or different[-1] * wanted >= 1:
                index = index_at_fpr(different, wanted)
                scores[place] = same[index] / same[-1] if index >= 0 else 0.0
    if times.sum():
        scores[1] = (right * times).sum() / times.sum()
    return scores


def index_at_fpr(different: NDArray[np.int64], wanted: float) -> int:
    """The last of (2001) distances up to which at most a share of the pairs of two persons is; -1 if none is so strict.

    >>> index_at_fpr(np.array([0, 1, 2, 2, 10]), 0.2), index_at_fpr(np.array([3, 3]), 0.2)
    (3, -1)
    """
    return int(np.searchsorted(different, wanted * different[-1], side="right")) - 1


def percentile_span(drawn: NDArray[np.float64]) -> Span | None:
    """The 95 % interval of some draws, without those that gave no number; None if most gave none.

    >>> percentile_span(np.array([np.nan, 1.0, 1.0]))
    (1.0, 1.0)
    """
    known = drawn[~np.isnan(drawn)]
    if 2 * len(known) < len(drawn) or not len(known):
        return None
    lower, upper = np.quantile(known, [0.025, 0.975]).tolist()
    return lower, upper


def _name(whole: NDArray[np.float64], drawn: NDArray[np.float64]) -> SiteScores:
    known = {name: float(score) for name, score in zip(NAMES, whole, strict=True) if not np.isnan(score)}
    spans = {name: percentile_span(drawn[:, at]) for at, name in enumerate(NAMES) if name in known}
    return SiteScores(known, {name: span for name, span in spans.items() if span is not None})
