"""Losses for metric learning on persons x images batches."""

import torch
import torch.nn.functional as F
from torch import Tensor

OVERFLOW_MARGIN = 0.3


def euclidean(left: Tensor, right: Tensor) -> Tensor:
    """(N, M) Euclidean distances of rows; the square is clamped at 1e-12 so that the root has a gradient."""
    square = left.pow(2).sum(1)[:, None] + right.pow(2).sum(1)[None] - 2 * left @ right.T
    return square.clamp(min=1e-12).sqrt()


def batch_hard_triplet(
    anchors: Tensor, anchor_label: Tensor, candidates: Tensor, candidate_label: Tensor, *, margin: float
) -> Tensor:
    """Batch-hard triplet loss (Hermans et al. 2017, arXiv 1703.07737, eq. 5).

    Each anchor takes its farthest candidate of the same person and its nearest of another person. In one process
    the candidates are the anchors; in several they are the images of all processes. If the soft margin's exponential
    overflows for any of these anchors, fast-reid uses a hinge of 0.3 for all of them, and so does this.

    Args:
        anchors: (B, D), not normalised.
        anchor_label: (B) classes.
        candidates: (M, D) with the anchors among them.
        candidate_label: (M) classes; each at least twice, and at least two of them.
        margin: hinge margin; 0 selects the soft margin log(1 + exp(x)).
    """
    with torch.autocast(anchors.device.type, enabled=False):
        distance = euclidean(anchors.float(), candidates.float())
    same = anchor_label[:, None] == candidate_label[None]
    farthest = distance.masked_fill(~same, float("-inf")).amax(dim=1)
    nearest = distance.masked_fill(same, float("inf")).amin(dim=1)
    return soft_margin(farthest - nearest) if margin == 0 else torch.relu(farthest - nearest + margin).mean()


def soft_margin(gap: Tensor) -> Tensor:
    """Mean of log(1 + exp(x)) over (B) gaps; of max(0, x + 0.3) if one exponential overflows float32."""
    # softplus itself never overflows, so its gradient is finite either way, and nothing waits for the device.
    overflows = torch.isinf(gap.detach().float().exp()).any()
    return torch.where(overflows, torch.relu(gap + OVERFLOW_MARGIN).mean(), F.softplus(gap).mean())
