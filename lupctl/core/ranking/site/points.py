"""Thresholds on the distance of a site's pairs, with intervals over its tracklets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.metrics.operating import OperatingPoint, equal_error_point, point_at_fpr
from lupctl.core.ranking.metrics.pairs import EDGES
from lupctl.core.ranking.site.distances import SiteDistances, draw_weights
from lupctl.core.ranking.site.scores import Span, index_at_fpr, percentile_span


@dataclass(frozen=True)
class SitePoint:
    """A threshold that a rule picks on all pairs, and what it picks in draws of the tracklets.

    Args:
        point: on all pairs.
        threshold_ci95, tpr_ci95: 95 % intervals; None if too few draws have pairs of both kinds.
    """

    point: OperatingPoint
    threshold_ci95: Span | None
    tpr_ci95: Span | None


def site_points(
    found: SiteDistances, rules: Sequence[float | None], *, draws: int = DRAWS, seed: int = SEED
) -> list[SitePoint | None]:
    """The threshold of each rule: a highest false match rate, or None for equal error rates.

    A threshold is None where there are too few pairs, as for `point_at_fpr`.
    """
    whole = found.counts()
    points = [equal_error_point(*whole) if rule is None else point_at_fpr(*whole, rule) for rule in rules]
    drawn = np.full((draws, len(rules), 2), np.nan)
    for number, weight in enumerate(draw_weights(found.pairs.num_tracklets, draws=draws, seed=seed)):
        same, different = found.counts(weight)
        if same[-1] and different[-1]:
            indices = np.array([_pick(rule, same, different) for rule in rules])
            drawn[number] = np.stack([EDGES[indices], same[indices] / same[-1]], axis=1)
            drawn[number, indices < 0] = 0  # no threshold is so strict that it finds anybody
    return [
        None if point is None else SitePoint(point, *(percentile_span(drawn[:, at, side]) for side in (0, 1)))
        for at, point in enumerate(points)
    ]


def _pick(rule: float | None, same: NDArray[np.int64], different: NDArray[np.int64]) -> int:
    """The place of a rule's threshold in (2001) cumulative counts; -1 for none."""
    if rule is not None:
        return index_at_fpr(different, rule)
    return int(np.abs(different / different[-1] - (1 - same / same[-1])).argmin())
