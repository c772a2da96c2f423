"""Metric learning on persons x images batches."""

import torch
import torch.nn.functional as F
from torch import Tensor


def euclidean(left: Tensor, right: Tensor) -> Tensor:
    """(N, M) Euclidean distances of rows; the square is clamped at 1e-12 so that the root has a gradient."""
    square = left.pow(2).sum(1)[:, None] + right.pow(2).sum(1)[None] - 2 * left @ right.T
    return square.clamp(min=1e-12).sqrt()


def batch_hard_triplet(features: Tensor, label: Tensor, margin: float) -> Tensor:
    """Batch-hard triplet loss (Hermans et al. 2017, arXiv 1703.07737, eq. 5).

    Each image takes its farthest image of the same person and its nearest of another one.

    Args:
        features: (B, D), not normalised.
        label: (B) classes; each at least twice, and at least two of them.
        margin: hinge margin; 0 stands for the soft margin log(1 + exp(x)).
    """
    distance = euclidean(features.float(), features.float())
    same = label[:, None] == label[None]
    farthest = distance.masked_fill(~same, float("-inf")).amax(dim=1)
    nearest = distance.masked_fill(same, float("inf")).amin(dim=1)
    if margin == 0:
        return F.softplus(farthest - nearest).mean()
    return torch.relu(farthest - nearest + margin).mean()
