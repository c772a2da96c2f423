"""Body parts without labels: clusters of a person's tokens, as in SOLIDER (Chen et al. 2023, arXiv 2303.17602).

The background has short token vectors, so that two clusters of their lengths tell a person from it; clusters of the
person's tokens, from the top of the image down, are the parts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lupctl.core.training.clusters.kmeans import k_means
from lupctl.core.training.clusters.two_means import split_in_two


class Parts(NamedTuple):
    """Of B feature maps.

    Args:
        labels: (B, h, w) int64: 0 for the background, 1 to R for the parts from the top down; 0 in maps without parts.
        kept: (B) bool, whether a map has parts.
    """

    labels: Tensor
    kept: Tensor


@torch.no_grad()
def find_parts(
    maps: Tensor, *, parts: int = 3, foreground: float = 0.5, restarts: int = 10, seeds: Tensor | int = 0
) -> Parts:
    """Pseudo labels of every map by itself.

    Two clusters of the lengths of the token vectors: the longer ones are the foreground. A map is kept when more than
    a share of its tokens are. Then R clusters of the foreground's vectors, in the order of their tokens' mean row.
    Where the published code takes the best of ten starts for the lengths too, these are split exactly.

    A map whose vectors are all of one length has no foreground, and one with numbers that are not finite has no parts:
    neither is kept. Where the foreground has fewer than R different vectors, the last parts are empty.

    Args:
        maps: (B, C, h, w).
        parts: R.
        foreground: share of the tokens that has to be exceeded.
        restarts: of the clusters of the foreground, see `k_means`.
        seeds: (B) int64 that the draws of each map are a function of, or one number.
    """
    height, width = maps.shape[2:]
    tokens = maps.flatten(2).mT.double()  # (B, n, C)
    is_finite = tokens.isfinite().all(dim=2).all(dim=1)
    tokens = torch.where(is_finite[:, None, None], tokens, 0)
    is_person = split_in_two(tokens.norm(dim=2))
    kept = is_finite & (is_person.sum(dim=1) > foreground * height * width)
    found = k_means(tokens, parts, present=is_person, restarts=restarts, seeds=seeds).labels
    labels = _from_the_top(found, parts, width).masked_fill(~kept[:, None], 0)
    return Parts(labels.view(-1, height, width), kept)


def _from_the_top(labels: Tensor, parts: int, width: int) -> Tensor:
    """(B, n): 0 for -1, then 1 to R by ascending mean row; of two clusters with one mean row, the one seen first.

    Args:
        labels: (B, n), -1 to R - 1.
        parts: R.
        width: tokens in a row.
    """
    place = torch.arange(labels.shape[1], device=labels.device)
    members = labels[:, None] == torch.arange(parts, device=labels.device)[:, None]  # (B, R, n)
    row = (members * (place // width)).sum(dim=2).double() / members.sum(dim=2)
    row = row.nan_to_num(nan=torch.inf)  # an empty cluster comes last
    seen = torch.where(members, place, len(place)).amin(dim=2)
    order = seen.argsort(dim=1)
    order = order.take_along_dim(row.take_along_dim(order, dim=1).argsort(dim=1, stable=True), dim=1)
    rank = order.argsort(dim=1)
    return torch.where(labels < 0, 0, rank.take_along_dim(labels.clamp(min=0), dim=1) + 1)
