"""k-means of many small sets at once, on their device: all sets and all starts in the same few operations.

The sets are token vectors of feature maps: tens of points in hundreds of dimensions.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from lupctl.core.training.clusters.descent import (
    Sets,
    count_trials,
    descend,
    draw_starts,
    jump,
    keep_distinct,
    lloyd,
    move_points,
)
from lupctl.core.training.hashing import WORD, mix

# Greedy k-means++ and Lloyd's rounds begin this many times in a restart. Of 360 maps of 8 x 4 tokens (smooth, in
# three dimensions, a fresh Swin), scikit-learn's best of ten restarts is not the best known in half; none got a
# larger inertia here than there. With 10 starts in all, and jumps from the best alone, up to 4 of 50 did.
STARTS_EACH: Final = 4
# Different minima of Lloyd's rounds that points are moved in, and those of them whose centres jump.
MOST_MOVED, MOST_JUMPING = 16, 4


class Clusters(NamedTuple):
    """Of B sets of n points.

    Args:
        labels: (B, n) int64, 0 to k - 1; -1 for points that are absent.
        centres: (B, k, D) float64, means of the clusters; NaN for a cluster without points, which there is only where
            a set has fewer than k different points.
        inertia: (B) float64, sum of squared distances to the centres.
    """

    labels: Tensor
    centres: Tensor
    inertia: Tensor


@torch.no_grad()
def k_means(
    points: Tensor, k: int, *, present: Tensor | None = None, restarts: int = 10, seeds: Tensor | int = 0
) -> Clusters:
    """The best clusters of several restarts, whose inertia is rarely above the smallest there is.

    A start is scikit-learn's: greedy k-means++ (Arthur and Vassilvitskii 2007, with 2 + log k trials a centre), then
    Lloyd's rounds, until no label changes. scikit-learn takes the best of its restarts; this takes a few of the
    different minima further: single points move while that makes the inertia smaller (Hartigan and Wong 1979), and
    from what is best then, one centre jumps to one point in several ways, from each of which the rounds go on.

    The result is a function of each set and its seed, whatever else is in the batch.

    Args:
        points: (B, n, D), finite; a set that is not has an inertia of NaN.
        k: number of clusters.
        present: (B, n) bool, which points count; all by default.
        restarts: of each set.
        seeds: (B) int64 that the draws of each set are a function of, or one number.
    """
    points = points.double()
    if present is None:
        present = torch.ones_like(points[..., 0], dtype=torch.bool)
    weight = present.double()
    mean = (weight[..., None] * points).sum(dim=1, keepdim=True) / weight.sum(dim=1).clamp(min=1)[:, None, None]
    centred = (points - mean) * weight[..., None]
    sets = Sets.of(centred @ centred.mT, weight, k)
    keys = torch.as_tensor(seeds, device=points.device).expand(len(points))
    draws = _uniform(keys, restarts * STARTS_EACH, 1 + (k - 1) * count_trials(k))
    minima = keep_distinct(sets, lloyd(sets, draw_starts(sets, draws)), MOST_MOVED)
    best = keep_distinct(sets, move_points(sets, minima), MOST_JUMPING)
    best = keep_distinct(sets, torch.cat([best, descend(sets, jump(sets, best))], dim=1), 1)
    return _describe(points, present, k, best[:, 0])


def _uniform(seeds: Tensor, restarts: int, count: int) -> Tensor:
    """(B, R, count) float64 in the open interval (0, 1), a function of each seed."""
    stream = torch.arange(1, 1 + restarts * count, device=seeds.device)
    keys = mix(mix(seeds & WORD) ^ ((seeds >> 32) & WORD))
    words = mix(keys[:, None] ^ mix(stream))
    return ((words.double() + 0.5) / 2**32).view(-1, restarts, count)


def _describe(points: Tensor, present: Tensor, k: int, labels: Tensor) -> Clusters:
    """The clusters of labels (B, n)."""
    labels = labels.masked_fill(~present, -1)
    members = (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).double()  # (B, k, n)
    centres = (members @ points) / members.sum(dim=-1, keepdim=True)
    own = centres.take_along_dim(labels.clamp(min=0)[..., None], dim=1)
    inertia = torch.where(present[..., None], points - own, 0).square().sum(dim=(1, 2))
    return Clusters(labels, centres, inertia)
