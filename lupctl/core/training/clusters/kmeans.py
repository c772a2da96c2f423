"""k-means of many small sets at once, on their device: all sets and all restarts in the same few operations.

The sets are token vectors of feature maps: tens of points in hundreds of dimensions. Distances between points and means
of points follow from the inner products of the points alone, so that after one batched product nothing depends on the
number of dimensions. Everything is in double precision: the same on every device and with every share of a batch, but
for sets whose clusters differ by less than its rounding.
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lupctl.core.training.hashing import WORD, mix

# scikit-learn's limit; sets of tens of points need about ten.
MOST_ROUNDS: Final = 300
# A move of one point has to improve a restart by more than this share of all scatter: less is rounding, and two such
# moves could undo each other for ever.
LEAST_GAIN: Final = 1e-12
# Jumps that are followed, of all from a centre to a point.
JUMPS: Final = 8


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
    """Clusters of the best of several restarts.

    A restart is scikit-learn's: greedy k-means++ (Arthur and Vassilvitskii 2007, with 2 + log k trials a centre), then
    Lloyd's rounds. These go on until no label changes, where scikit-learn may stop at a tolerance. Two things are added
    that leave local minima of Lloyd's rounds, so that the inertia is that of scikit-learn or smaller, but for rare sets
    of other shapes than were tried: single points move while that makes the inertia smaller (Hartigan and Wong 1979);
    and from the best restart on, a few jumps of one centre to one point are tried, from which the same rounds go on.

    Args:
        points: (B, n, D), finite.
        k: number of clusters.
        present: (B, n) bool, which points count; all by default.
        restarts: of each set.
        seeds: (B) int64 that the draws of each set are a function of, whatever else is in the batch; or one number.
    """
    points = points.double()
    if present is None:
        present = torch.ones_like(points[..., 0], dtype=torch.bool)
    weight = present.double()
    mean = (weight[..., None] * points).sum(dim=1, keepdim=True) / weight.sum(dim=1).clamp(min=1)[:, None, None]
    centred = (points - mean) * weight[..., None]
    products = centred @ centred.mT
    keys = torch.as_tensor(seeds, device=points.device).expand(len(points))
    draws = _uniform(keys, restarts, 1 + (k - 1) * _trials(k))
    sets = _Sets(products, products.diagonal(dim1=1, dim2=2), weight, k)
    best = _pick_best(sets, _descend(sets, _start(sets, draws)))
    best = _pick_best(sets, torch.cat([best, _descend(sets, _jump(sets, best))], dim=1))
    return _describe(points, present, k, best[:, 0])


class _Sets(NamedTuple):
    """B sets of n points, as seen from their means.

    Args:
        products: (B, n, n), of all pairs; 0 for absent points.
        squares: (B, n), of each point with itself.
        weight: (B, n), 1 for points that are present, else 0.
        k: number of clusters.
    """

    products: Tensor
    squares: Tensor
    weight: Tensor
    k: int

    def apart(self) -> Tensor:
        """(B, n, n), squared distances between points; 0 to those that are absent."""
        apart = self.squares[:, :, None] + self.squares[:, None, :] - 2 * self.products
        return apart.clamp_(min=0) * self.weight[:, None, :]


def _trials(k: int) -> int:
    return 2 + int(math.log(k))


def _uniform(seeds: Tensor, restarts: int, count: int) -> Tensor:
    """(B, R, count) float64 in the open interval (0, 1), a function of each seed."""
    stream = torch.arange(1, 1 + restarts * count, device=seeds.device)
    keys = mix(mix(seeds & WORD) ^ ((seeds >> 32) & WORD))
    words = mix(keys[:, None] ^ mix(stream))
    return ((words.double() + 0.5) / 2**32).view(-1, restarts, count)


def _start(sets: _Sets, draws: Tensor) -> Tensor:
    """(B, R, n), for each point the nearest of k points that greedy k-means++ draws with numbers (B, R, 1 + …)."""
    n, trials, apart = sets.weight.shape[1], _trials(sets.k), sets.apart()
    until = torch.ones(n, n, dtype=torch.double, device=apart.device).triu()  # running sums as a product

    def pick(masses: Tensor, shares: Tensor) -> Tensor:
        """(B, R, T): the points at which running sums of masses (B, 1 or R, n) reach shares (B, R, T) of the total."""
        sums = masses @ until
        reached = sums[:, :, None] < shares[..., None] * sums[:, :, None, -1:]
        return reached.sum(dim=-1).clamp_(max=n - 1)

    def distances(chosen: Tensor) -> Tensor:
        """(B, R, T, n) squared, from chosen points (B, R, T)."""
        return apart.take_along_dim(chosen.flatten(1)[..., None], dim=1).view(*chosen.shape, n)

    centres = [distances(pick(sets.weight[:, None], draws[..., :1]))]  # (B, R, 1, n) each
    nearest = centres[0]
    for first in range(1, draws.shape[2], trials):
        candidates = distances(pick(nearest[:, :, 0], draws[..., first : first + trials]))
        closest = torch.minimum(candidates, nearest)  # (B, R, T, n)
        best = closest.sum(dim=-1).argmin(dim=-1)[..., None, None]
        nearest = closest.take_along_dim(best, dim=2)
        centres.append(candidates.take_along_dim(best, dim=2))
    return torch.cat(centres, dim=2).argmin(dim=2)


class _Sums(NamedTuple):
    """What labels (B, R, n) say of all points.

    Args:
        members: (B, R, k, n), 1 where a point is in a cluster, else 0.
        counts: (B, R, k, 1), of a cluster's points.
        apart: (B, R, k, n), squared distances from the clusters' means, less each point's own square; infinite where a
            cluster is empty.
    """

    members: Tensor
    counts: Tensor
    apart: Tensor


def _sum(sets: _Sets, labels: Tensor) -> _Sums:
    clusters = torch.arange(sets.k, device=labels.device)[:, None]
    members = (labels[:, :, None] == clusters) * sets.weight[:, None, None]
    sums = (members.flatten(1, 2) @ sets.products).view_as(members)
    counts = members.sum(dim=-1, keepdim=True)
    within = (members * sums).sum(dim=-1, keepdim=True) / counts.square()
    apart = (within - 2 * sums / counts).nan_to_num_(nan=math.inf)
    return _Sums(members, counts, apart)


def _descend(sets: _Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) that no round changes any more."""
    return _move_points(sets, _lloyd(sets, labels))


def _lloyd(sets: _Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) at which every point is in the cluster with the nearest mean."""
    for _ in range(MOST_ROUNDS):
        nearer = _sum(sets, labels).apart.argmin(dim=2)
        if torch.equal(nearer, labels):
            break
        labels = nearer
    return labels


def _move_points(sets: _Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) at which moving one point to another cluster never makes the inertia smaller.

    Moving a point at squared distances d from a mean of N points and d' from one of N' changes the inertia by
    d' N' / (N' + 1) - d N / (N - 1). An empty cluster takes the point that is farthest from its mean, as scikit-learn
    fills one.
    """
    least = LEAST_GAIN * sets.squares.sum(dim=1)[:, None, None]
    for _ in range(MOST_ROUNDS):
        members, counts, apart = _sum(sets, labels)
        distance = (apart + sets.squares[:, None, None]).clamp_(min=0)
        enter = torch.where(counts > 0, distance * (counts / (counts + 1)), 0)
        leave = torch.where((members > 0) & (counts > 1), distance * (counts / (counts - 1)), 0).sum(dim=2)  # (B, R, n)
        cost, into = enter.masked_fill(members > 0, math.inf).min(dim=2)
        gain, moved = ((leave - cost) * sets.weight[:, None]).max(dim=-1, keepdim=True)  # (B, R, 1)
        is_better = gain > least
        if not is_better.any():
            break
        target = torch.where(is_better, into.take_along_dim(moved, dim=-1), labels.take_along_dim(moved, dim=-1))
        labels = labels.scatter(-1, moved, target)
    return labels


def _jump(sets: _Sets, labels: Tensor) -> Tensor:
    """(B, J, n), labels after one centre of labels (B, 1, n) has jumped to a point: the jumps that are best at once.

    Best is the smallest sum of squared distances to the nearest centre, before any mean is taken anew.
    """
    n, k = labels.shape[2], sets.k
    points = sets.apart()  # (B, n, n)
    means = (_sum(sets, labels).apart[:, 0] + sets.squares[:, None]) * sets.weight[:, None]  # (B, k, n)
    means = means.nan_to_num(nan=math.inf)
    others = means[:, None].masked_fill(torch.eye(k, dtype=torch.bool, device=labels.device)[..., None], math.inf)
    to_others = others.amin(dim=2)  # (B, k, n), without the centre that jumps
    sums = torch.minimum(to_others[:, :, None], points[:, None]).sum(dim=-1).flatten(1)  # (B, k * n)
    best = sums.sort(dim=1, stable=True).indices[:, :JUMPS]
    jumping, target = best // n, best % n
    is_jumping = jumping[..., None] == torch.arange(k, device=labels.device)  # (B, J, k)
    to_target = points.take_along_dim(target[..., None], dim=1)[:, :, None]  # (B, J, 1, n)
    return torch.where(is_jumping[..., None], to_target, means[:, None]).argmin(dim=2)


def _pick_best(sets: _Sets, labels: Tensor) -> Tensor:
    """(B, 1, n), of labels (B, R, n) those with the smallest inertia, the first of equals."""
    members, _, apart = _sum(sets, labels)
    inertia = torch.where(members > 0, apart, 0).sum(dim=(2, 3))  # less a sum that is the same for all
    return labels.take_along_dim(inertia.argmin(dim=1)[:, None, None], dim=1)


def _describe(points: Tensor, present: Tensor, k: int, labels: Tensor) -> Clusters:
    """The clusters of labels (B, n)."""
    labels = labels.masked_fill(~present, -1)
    members = (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).double()  # (B, k, n)
    centres = (members @ points) / members.sum(dim=-1, keepdim=True)
    own = centres.take_along_dim(labels.clamp(min=0)[..., None], dim=1)
    inertia = torch.where(present[..., None], points - own, 0).square().sum(dim=(1, 2))
    return Clusters(labels, centres, inertia)
