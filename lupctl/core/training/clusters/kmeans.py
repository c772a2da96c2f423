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
    Lloyd's rounds. These go on until no label changes, where scikit-learn may stop at a tolerance; and after them
    single points move while that makes the inertia smaller (Hartigan and Wong 1979), which leaves local minima
    that Lloyd's rounds cannot.

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
    scatter = products.diagonal(dim1=1, dim2=2).sum(dim=1)  # (B)
    draws = _uniform(
        torch.as_tensor(seeds, device=points.device).expand(len(points)), restarts, 1 + (k - 1) * _trials(k)
    )
    labels = _start(products, weight, k, draws)  # (B, R, n)
    labels = _lloyd(products, weight, k, labels)
    labels = _move_points(products, weight, k, labels, LEAST_GAIN * scatter)
    best = _inertia(products, weight, k, labels).argmin(dim=1)  # the first of equals
    labels = labels.take_along_dim(best[:, None, None], dim=1)[:, 0]
    return _describe(points, present, k, labels)


def _trials(k: int) -> int:
    return 2 + int(math.log(k))


def _uniform(seeds: Tensor, restarts: int, count: int) -> Tensor:
    """(B, R, count) float64 in the open interval (0, 1), a function of each seed."""
    stream = torch.arange(1, 1 + restarts * count, device=seeds.device)
    keys = mix(mix(seeds & WORD) ^ ((seeds >> 32) & WORD))
    words = mix(keys[:, None] ^ mix(stream))
    return ((words.double() + 0.5) / 2**32).view(-1, restarts, count)


def _start(products: Tensor, weight: Tensor, k: int, draws: Tensor) -> Tensor:
    """(B, R, n), the nearest of k points that greedy k-means++ draws."""
    n = weight.shape[1]
    norms = products.diagonal(dim1=1, dim2=2)
    apart = (norms[:, :, None] + norms[:, None, :] - 2 * products).clamp_(min=0) * weight[:, None, :]  # (B, n, n)
    until = torch.ones(n, n, dtype=torch.double, device=weight.device).triu()  # running sums as a product

    def pick(masses: Tensor, shares: Tensor) -> Tensor:
        """(B, R, T): the points at which running sums of masses (B, 1 or R, n) reach shares (B, R, T) of the total."""
        sums = masses @ until
        reached = sums[:, :, None] < shares[..., None] * sums[:, :, None, -1:]
        return reached.sum(dim=-1).clamp_(max=n - 1)

    def distances(chosen: Tensor) -> Tensor:
        """(B, R, T, n) squared, from chosen points (B, R, T)."""
        return apart.take_along_dim(chosen.flatten(1)[..., None], dim=1).view(*chosen.shape, n)

    first, rest = draws[..., :1], torch.split(draws[..., 1:], _trials(k), dim=-1)
    all_centres = [distances(pick(weight[:, None], first))]  # (B, R, 1, n) each
    nearest = all_centres[0]
    for shares in rest if k > 1 else ():
        candidates = distances(pick(nearest[:, :, 0], shares))
        closest = torch.minimum(candidates, nearest)  # (B, R, T, n)
        best = closest.sum(dim=-1).argmin(dim=-1)[..., None, None]
        nearest = closest.take_along_dim(best, dim=2)
        all_centres.append(candidates.take_along_dim(best, dim=2))
    return torch.cat(all_centres, dim=2).argmin(dim=2)


class _Sums(NamedTuple):
    """What the labels of all restarts say of all points.

    Args:
        members: (B, R, k, n), 1 where a point is in a cluster, else 0.
        counts: (B, R, k, 1), of a cluster's points.
        apart: (B, R, k, n), squared distances from the clusters' means, less each point's own square; infinite where a
            cluster is empty.
    """

    members: Tensor
    counts: Tensor
    apart: Tensor


def _sum(products: Tensor, weight: Tensor, k: int, labels: Tensor) -> _Sums:
    clusters = torch.arange(k, device=labels.device)[:, None]
    members = (labels[:, :, None] == clusters) * weight[:, None, None]
    sums = (members.flatten(1, 2) @ products).view_as(members)
    counts = members.sum(dim=-1, keepdim=True)
    within = (members * sums).sum(dim=-1, keepdim=True) / counts.square()
    apart = (within - 2 * sums / counts).nan_to_num_(nan=math.inf)
    return _Sums(members, counts, apart)


def _lloyd(products: Tensor, weight: Tensor, k: int, labels: Tensor) -> Tensor:
    """Labels (B, R, n) at which every point is in the cluster with the nearest mean."""
    for _ in range(MOST_ROUNDS):
        nearer = _sum(products, weight, k, labels).apart.argmin(dim=2)
        if torch.equal(nearer, labels):
            break
        labels = nearer
    return labels


def _move_points(products: Tensor, weight: Tensor, k: int, labels: Tensor, least: Tensor) -> Tensor:
    """Labels (B, R, n) at which moving one point to another cluster never makes the inertia smaller.

    Moving a point at squared distances d from a mean of N points and d' from one of N' changes the inertia by
    d' N' / (N' + 1) - d N / (N - 1), counted without the point. An empty cluster takes the point that is farthest from
    its mean, as scikit-learn fills one.

    Args:
        products, weight, k, labels: as above.
        least: (B), gains that count.
    """
    own_squares = products.diagonal(dim1=1, dim2=2)[:, None, None]
    for _ in range(MOST_ROUNDS):
        members, counts, apart = _sum(products, weight, k, labels)
        distance = (apart + own_squares).clamp_(min=0)
        enter = torch.where(counts > 0, distance * (counts / (counts + 1)), 0)
        leave = torch.where((members > 0) & (counts > 1), distance * (counts / (counts - 1)), 0).sum(dim=2)  # (B, R, n)
        cost, into = enter.masked_fill(members > 0, math.inf).min(dim=2)
        gain, moved = ((leave - cost) * weight[:, None]).max(dim=-1, keepdim=True)  # (B, R, 1)
        is_better = gain > least[:, None, None]
        if not is_better.any():
            break
        target = torch.where(is_better, into.take_along_dim(moved, dim=-1), labels.take_along_dim(moved, dim=-1))
        labels = labels.scatter(-1, moved, target)
    return labels


def _inertia(products: Tensor, weight: Tensor, k: int, labels: Tensor) -> Tensor:
    """(B, R)."""
    members, _, apart = _sum(products, weight, k, labels)
    return torch.where(members > 0, apart, 0).sum(dim=(2, 3)) + products.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None]


def _describe(points: Tensor, present: Tensor, k: int, labels: Tensor) -> Clusters:
    """The clusters of labels (B, n)."""
    labels = labels.masked_fill(~present, -1)
    members = (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).double()  # (B, k, n)
    centres = (members @ points) / members.sum(dim=-1, keepdim=True)
    own = centres.take_along_dim(labels.clamp(min=0)[..., None], dim=1)
    inertia = torch.where(present[..., None], points - own, 0).square().sum(dim=(1, 2))
    return Clusters(labels, centres, inertia)
