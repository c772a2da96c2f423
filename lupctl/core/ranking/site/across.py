"""Tracklets of two cameras that are taken for one person, because each is nearest to the other. Nobody has checked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import UNKNOWN_CAMERA
from lupctl.core.ranking.site.pairs import SitePairs


@dataclass(frozen=True)
class Across:
    """Pairs of tracklets of two cameras.

    Args:
        pairs: (P, 2) tracklets that are each other's nearest by their first thirds.
        found_again: share of them that are so by their last thirds, too; 0 of no pairs.
        distance: (P) float32, 1 - the cosine of an image of the first third of one and one of the last third of the
            other, the mean of all.
    """

    pairs: NDArray[np.int64]
    found_again: float
    distance: NDArray[np.float32]


def match_across(features: NDArray[Any], pairs: SitePairs, *, device: torch.device) -> Across | None:
    """The pairs of tracklets that a network assumes to be one person seen by two cameras.

    That the network chose them makes them look better than true ones: they are nearest by one part of the tracklets,
    and are measured with the other. None if fewer than two cameras are known.

    Args:
        features: (N, D), not necessarily normalised, that `pairs.rows` counts.
        pairs: of the site.
        device: where products are computed.
    """
    known = pairs.camera != UNKNOWN_CAMERA
    if len(np.unique(pairs.camera[known])) < 2:
        return None
    early, late = (_mean_directions(features, pairs, is_late=which, device=device) for which in (False, True))
    apart = torch.from_numpy((pairs.camera[:, None] != pairs.camera) & known[:, None] & known).to(device)
    first, again = _mutual(early @ early.T, apart), _mutual(late @ late.T, apart)
    found = np.argwhere(np.triu(first))
    share = float(again[tuple(found.T)].mean()) if len(found) else 0.0
    cosine = early @ late.T
    both = ((cosine + cosine.T) / 2).cpu().numpy()
    return Across(found, share, (1 - both[tuple(found.T)]).astype(np.float32))


def _mean_directions(features: NDArray[Any], pairs: SitePairs, *, is_late: bool, device: torch.device) -> torch.Tensor:
    """(T, D) mean of the unit vectors of one third of each tracklet, which keeps the scale of single images."""
    chosen = np.flatnonzero(pairs.is_late == is_late)
    vectors = torch.from_numpy(np.asarray(features[pairs.rows[chosen]], np.float32)).to(device)
    units = torch.nn.functional.normalize(vectors, dim=1)
    tracklet = torch.from_numpy(pairs.tracklet[chosen]).to(device)
    total = torch.zeros(pairs.num_tracklets, units.shape[1], device=device).index_add_(0, tracklet, units)
    return total / torch.bincount(tracklet, minlength=pairs.num_tracklets)[:, None]


def _mutual(cosine: torch.Tensor, apart: torch.Tensor) -> NDArray[np.bool_]:
    """(T, T) bool, which pairs of tracklets of two cameras are each other's nearest; ties take the first."""
    best = cosine.masked_fill(~apart, -torch.inf).argmax(dim=1)
    chosen = torch.zeros_like(apart)
    chosen[torch.arange(len(best), device=best.device), best] = True
    mutual: NDArray[np.bool_] = (chosen & chosen.T & apart).cpu().numpy()
    return mutual
