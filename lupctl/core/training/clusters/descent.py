"""Ways downhill from many labellings of many small sets at once, in one kernel each.

Distances between points and means of points follow from the inner products of the points alone, so that after one
batched product nothing depends on the number of dimensions. Everything is in double precision: the same on every device
and with every share of a batch, but for labellings that differ by less than its rounding.
"""

import math
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

# scikit-learn's limit; sets of tens of points need about ten.
MOST_ROUNDS: Final = 300
# A move of one point has to gain more than this share of all scatter: less is rounding, and two such moves could undo
# each other for ever. Two labellings whose inertia differs by less are the same.
LEAST_GAIN: Final = 1e-12
# Jumps that are followed from each labelling, of all from a centre to a point.
JUMPS: Final = 16


class Sets(NamedTuple):
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

    @classmethod
    def of(cls, products: Tensor, weight: Tensor, k: int) -> Self:
        """From the products and weights."""
        return cls(products, products.diagonal(dim1=1, dim2=2), weight, k)

    def apart(self) -> Tensor:
        """(B, n, n), squared distances between points; 0 to those that are absent."""
        apart = self.squares[:, :, None] + self.squares[:, None, :] - 2 * self.products
        return apart.clamp_(min=0) * self.weight[:, None, :]


def count_trials(k: int) -> int:
    """Points that greedy k-means++ tries for each centre but the first."""
    return 2 + int(math.log(k))


def draw_starts(sets: Sets, draws: Tensor) -> Tensor:
    """(B, R, n), for each point the nearest of k points that greedy k-means++ draws with numbers (B, R, 1 + …)."""
    n, trials, apart = sets.weight.shape[1], count_trials(sets.k), sets.apart()
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


def _sum(sets: Sets, labels: Tensor) -> _Sums:
    members = (labels[:, :, None] == torch.arange(sets.k, device=labels.device)[:, None]) * sets.weight[:, None, None]
    counts = members.sum(dim=-1, keepdim=True)
    share = counts.reciprocal()  # of a point in its cluster's mean
    means = (members.flatten(1, 2) @ sets.products).view_as(members).mul_(share)  # products of means and points
    within = (members * means).sum(dim=-1, keepdim=True).mul_(share)
    return _Sums(members, counts, torch.sub(within, means, alpha=2).nan_to_num_(nan=math.inf))


def descend(sets: Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) that no round changes any more."""
    return move_points(sets, lloyd(sets, labels))


def lloyd(sets: Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) at which every point is in the cluster with the nearest mean."""
    for _ in range(MOST_ROUNDS):
        nearer = _sum(sets, labels).apart.argmin(dim=2)
        if torch.equal(nearer, labels):
            break
        labels = nearer
    return labels


def move_points(sets: Sets, labels: Tensor) -> Tensor:
    """Labels (B, R, n) at which moving one point to another cluster never makes the inertia smaller.

    Moving a point at squared distances d from a mean of N points and d' from one of N' changes the inertia by
    d' N' / (N' + 1) - d N / (N - 1). An empty cluster takes the point that is farthest from its mean, as scikit-learn
    fills one.
    """
    least, squares = LEAST_GAIN * sets.squares.sum(dim=1)[:, None, None], sets.squares[:, None, None]
    for _ in range(MOST_ROUNDS):
        members, counts, apart = _sum(sets, labels)
        distance, is_own = (apart + squares).clamp_(min=0), members > 0
        # Of an empty cluster infinitely far times 0; alone in a cluster, a point is at distance 0.
        enter = (distance * (counts / (counts + 1))).nan_to_num_(nan=0).masked_fill_(is_own, math.inf)
        leave = torch.where(is_own, distance * (counts / (counts - 1).clamp_(min=1)), 0).sum(dim=2)  # (B, R, n)
        cost, into = enter.min(dim=2)
        gain, moved = ((leave - cost) * sets.weight[:, None]).max(dim=-1, keepdim=True)  # (B, R, 1)
        is_better = gain > least
        if not is_better.any():
            break
        target = torch.where(is_better, into.take_along_dim(moved, dim=-1), labels.take_along_dim(moved, dim=-1))
        labels = labels.scatter(-1, moved, target)
    return labels


def jump(sets: Sets, labels: Tensor) -> Tensor:
    """(B, R * J, n), labels after one centre of labels (B, R, n) has jumped to a point: of each the J best ways.

    Best is the smallest sum of squared distances to the nearest centre, before any mean is taken anew.
    """
    runs, n, k = labels.shape[1], labels.shape[2], sets.k
    points = sets.apart()[:, None]  # (B, 1, n, n)
    means = (_sum(sets, labels).apart + sets.squares[:, None, None]).clamp_(min=0) * sets.weight[:, None, None]
    means = means.nan_to_num(nan=math.inf)  # (B, R, k, n); an empty cluster is nobody's nearest
    is_same = torch.eye(k, dtype=torch.bool, device=labels.device)[..., None]
    to_others = means[:, :, None].masked_fill(is_same, math.inf).amin(dim=3)  # (B, R, k, n), but for the one that jumps
    sums = torch.minimum(to_others[..., None, :], points[:, :, None]).sum(dim=-1).flatten(2)  # (B, R, k * n)
    best = sums.sort(dim=2, stable=True).indices[..., :JUMPS]
    jumping, target = best // n, best % n  # (B, R, J)
    is_jumping = jumping[..., None] == torch.arange(k, device=labels.device)  # (B, R, J, k)
    to_target = points.take_along_dim(target[..., None], dim=2)[:, :, :, None]  # (B, R, J, 1, n)
    moved = torch.where(is_jumping[..., None], to_target, means[:, :, None])
    return moved.argmin(dim=3).view(-1, runs * best.shape[2], n)


def keep_distinct(sets: Sets, labels: Tensor, most: int) -> Tensor:
    """(B, at most `most`, n), of labels (B, R, n) the best, those of one inertia once; the first of these is the best.

    Where there are fewer different ones, some come again.
    """
    members, _, apart = _sum(sets, labels)
    inertia = torch.where(members > 0, apart, 0).sum(dim=(2, 3))  # less a sum that is the same for all
    ordered = inertia.sort(dim=1, stable=True)
    is_again = ordered.values.diff(dim=1) <= LEAST_GAIN * sets.squares.sum(dim=1, keepdim=True)
    is_again = torch.cat([torch.zeros_like(is_again[:, :0].any(dim=1, keepdim=True)), is_again], dim=1)
    order = is_again.byte().sort(dim=1, stable=True).indices[:, :most]
    return labels.take_along_dim(ordered.indices.take_along_dim(order, dim=1)[..., None], dim=1)
