"""k-reciprocal neighbour sets and their expansion (Zhong et al. 2017, arXiv 1701.08398, section 3.2)."""

import torch
from torch import Tensor

# Entries of one block of comparisons, one byte each.
COMPARED = 1 << 25


def half_neighbourhood(k1: int) -> int:
    """k1 / 2 rounded, halves to even, as in the authors' Python code; their MATLAB code rounds differently.

    >>> [half_neighbourhood(k1) for k1 in (20, 7, 5)]
    [10, 4, 2]
    """
    return round(k1 / 2)


def reciprocal_mask(index: Tensor, k: int) -> Tensor:
    """Mask of a row's first k + 1 neighbours that have the row among their own first k + 1.

    Args:
        index: (N, K) int64, nearest first, the row itself included.
        k: number of neighbours, of which at most K - 1 are used.

    Returns:
        (N, min(k + 1, K)) bool.
    """
    near = index[:, : k + 1]
    size = max(1, COMPARED // near.shape[1] ** 2)
    own = torch.arange(len(index), device=index.device)
    masks = [
        (near[near[start : start + size]] == own[start : start + size, None, None]).any(dim=2)
        for start in range(0, len(index), size)
    ]
    return torch.cat(masks)


def expanded_sets(index: Tensor, k1: int) -> tuple[Tensor, Tensor]:
    """The expanded k-reciprocal set of every row.

    N(i, k1) contains j if each is among the other's first k1 + 1. To it is added all of N(j, h), with h = k1 / 2
    rounded, for every j in N(i, k1) for which more than two thirds of N(j, h) are in N(i, k1).

    Args:
        index: (N, K) int64, nearest first; K = k1 + 1, or N where the pool is smaller.
        k1: size of the neighbourhood.

    Returns:
        (P) rows ascending, (P) members ascending within a row; both int64, without repetition.
    """
    index = index[:, : k1 + 1]
    half = half_neighbourhood(k1)
    is_mutual = reciprocal_mask(index, k1)
    is_mutual_half = reciprocal_mask(index, half)
    width = index.shape[1]
    size = max(1, COMPARED // (width * width * is_mutual_half.shape[1]))
    keys = [
        _expanded_keys(index, is_mutual, is_mutual_half, start, min(start + size, len(index)))
        for start in range(0, len(index), size)
    ]
    key = torch.cat(keys)
    return key // len(index), key % len(index)


def _expanded_keys(index: Tensor, is_mutual: Tensor, is_mutual_half: Tensor, start: int, stop: int) -> Tensor:
    near, in_set = index[start:stop], is_mutual[start:stop]  # (B, K)
    candidate = index[near, : is_mutual_half.shape[1]]  # (B, K, H), first neighbours of each neighbour
    is_candidate = is_mutual_half[near]
    # A member of the set compares as itself, anything else as -1, which no candidate equals.
    members = torch.where(in_set, near, -1)
    inside = (candidate[..., None] == members[:, None, None, :]).any(dim=3) & is_candidate
    accepted = in_set & (3 * inside.sum(dim=2) > 2 * is_candidate.sum(dim=2))
    row = torch.arange(start, stop, device=index.device) * len(index)
    own = (row[:, None] + near)[in_set]
    added = (row[:, None, None] + candidate)[is_candidate & accepted[..., None]]
    keys: Tensor = torch.unique(torch.cat([own, added]))
    return keys
