"""Distances of a site's pairs, counted; and what draws of its tracklets say of the counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.pairs import EDGES
from lupctl.core.ranking.metrics.ranking import chunk_ranges
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.site.pairs import SitePairs

# Pairs whose vectors are gathered at once.
BLOCK: Final = 1 << 14


@dataclass(frozen=True)
class SiteDistances:
    """The distance of each pair.

    Args:
        pairs: M pairs.
        distance: (M) float32, 1 - cos.
    """

    pairs: SitePairs
    distance: NDArray[np.float32]

    def without(self, images: Sequence[int]) -> "SiteDistances":
        """Those of the pairs that have none of some images; `pairs.rows` gives their numbers."""
        pairs = self.pairs
        kept = ~(np.isin(pairs.rows[pairs.query], images) | np.isin(pairs.rows[pairs.gallery], images))
        return SiteDistances(replace(pairs, query=pairs.query[kept], gallery=pairs.gallery[kept]), self.distance[kept])

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """(M) of the steps of 0.001 the first that a distance does not exceed."""
        return np.searchsorted(EDGES[:-1].astype(np.float32), self.distance, side="left")

    @cached_property
    def _same(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bin and tracklet of the pairs of one person."""
        same = self.pairs.is_same
        return self.bins[same], self.pairs.tracklet[self.pairs.query[same]]

    @cached_property
    def _different(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Bin and both tracklets of the other pairs."""
        some = ~self.pairs.is_same
        first, second = (self.pairs.tracklet[side[some]] for side in (self.pairs.query, self.pairs.gallery))
        return self.bins[some], first, second

    @cached_property
    def first_right(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of each query with both kinds of pairs, whether the nearest is of its person, and its tracklet.

        A tie is not right.
        """
        same, query = self.pairs.is_same, self.pairs.query
        nearest = np.full((2, len(self.pairs.rows)), np.inf, np.float32)
        np.minimum.at(nearest[0], query[same], self.distance[same])
        np.minimum.at(nearest[1], query[~same], self.distance[~same])
        asked = np.isfinite(nearest).all(axis=0)
        return (nearest[0] < nearest[1])[asked], self.pairs.tracklet[asked]

    def counts(self, weight: NDArray[np.float64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of one person, and of two, up to each distance: (2001) each, as `PairCounts` has them.

        Args:
            weight: (T) how often each tracklet counts; a pair of two counts as often as the product. None: once.
        """
        (bins, own), (others, first, second) = self._same, self._different
        weights = (None, None) if weight is None else (weight[own], weight[first] * weight[second])
        found = (
            np.bincount(some, weights=times, minlength=len(EDGES)).cumsum()
            for some, times in zip((bins, others), weights, strict=True)
        )
        same, different = (np.rint(one).astype(np.int64) for one in found)
        return same, different


def measure_distances(features: NDArray[Any], pairs: SitePairs, *, device: torch.device) -> SiteDistances:
    """The distances of a site's pairs.

    Args:
        features: (N, D), not necessarily normalised, that `pairs.rows` counts.
        pairs: M pairs.
        device: where they are computed.
    """
    units = UnitRows(features, pairs.rows, device=device)
    distance = np.zeros(len(pairs.query), np.float32)
    for start, stop in chunk_ranges(len(distance), BLOCK):
        sides = (torch.from_numpy(side[start:stop]).to(device) for side in (pairs.query, pairs.gallery))
        query, gallery = (units.unit_at(side) for side in sides)
        distance[start:stop] = (1 - (query * gallery).sum(dim=1)).clamp(0, 2).cpu().numpy()
    return SiteDistances(pairs, distance)


def draw_weights(tracklets: int, *, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of T tracklets occurs in draws of T with replacement.

    With pairs that count as often as the product of their two tracklets, this is the pigeonhole bootstrap (Owen 2007,
    The pigeonhole bootstrap, Annals of Applied Statistics 1): it takes into account that all pairs of a tracklet vary
    together, and its intervals are rather too wide than too narrow.
    """
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield random.multinomial(tracklets, np.full(tracklets, 1 / tracklets)).astype(np.float64)
