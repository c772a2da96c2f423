"""The weighted triplet of AGW, which has no margin and no hardest example."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.training.losses.triplet import euclidean


def weighted_triplet(anchors: Tensor, anchor_label: Tensor, candidates: Tensor, candidate_label: Tensor) -> Tensor:
    """Weighted regularised triplet loss (Ye et al. 2021, arXiv 2001.04193, eq. 4 and 5).

        loss = mean of log(1 + exp(sum over positives of w d - sum over negatives of v d))

    with w the softmax of the distances over an anchor's positives, including itself, and v that of the negated
    distances over its negatives. Both are part of the gradient.

    Args:
        anchors: (B, D), not normalised.
        anchor_label: (B) classes.
        candidates: (M, D) with the anchors among them; in several processes the images of all.
        candidate_label: (M) classes, at least two of them.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        distance = euclidean(anchors.float(), candidates.float())
    same = anchor_label[:, None] == candidate_label[None]
    near = distance.masked_fill(~same, float("-inf")).softmax(dim=1)
    far = (-distance).masked_fill(same, float("-inf")).softmax(dim=1)
    return F.softplus(((near - far) * distance).sum(dim=1)).mean()
