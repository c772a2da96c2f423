"""The best two clusters of numbers, exactly."""

from typing import Final

import torch
from torch import Tensor

# Numbers that are nearer than this share of the largest are equal: lengths of the same vector, in double precision.
ROUNDING: Final = 1e-12


@torch.no_grad()
def split_in_two(values: Tensor) -> Tensor:
    """Which of the n numbers of each of B sets are in the cluster with the larger mean, by k-means with k = 2.

    Clusters of numbers are intervals (Fisher 1958), so that the best two follow from all n - 1 splits of the sorted
    numbers: no start is drawn and no local minimum is found. The first of equal splits counts, from the smallest number
    up. Equal numbers (but for rounding) stay together: where all are equal, none is in the larger cluster.

    Args:
        values: (B, n), finite.

    Returns:
        (B, n) bool.
    """
    count = values.shape[1]
    if count < 2:
        return torch.zeros_like(values, dtype=torch.bool)
    ordered = values.double().sort(dim=1).values
    low = torch.arange(1, count, device=values.device)  # numbers below a split
    until = torch.ones(count, count, dtype=torch.double, device=values.device).triu()  # running sums as a product
    sums = ((ordered - ordered.mean(dim=1, keepdim=True)) @ until)[:, :-1]  # (B, n - 1)
    # Of numbers with mean 0, low ones with sum s: the squares between the clusters, s^2 / low + s^2 / high.
    between = sums.square() * (1 / low + 1 / (count - low))
    is_split = ordered.diff(dim=1) > ROUNDING * ordered.abs().amax(dim=1, keepdim=True)
    best = torch.where(is_split, between, -1).argmax(dim=1, keepdim=True)
    last = torch.where(is_split.any(dim=1, keepdim=True), ordered.gather(1, best), torch.inf)
    return values.double() > last
