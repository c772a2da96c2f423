"""Losses for classifying persons."""

import torch.nn.functional as F
from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, label: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016): target (1 - e) one-hot + e / K.

    Args:
        logits: (B, K).
        label: (B) classes.
        smoothing: e.
    """
    return F.cross_entropy(logits.float(), label, label_smoothing=smoothing)


def evenly_smoothed_losses(logits: Tensor, label: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of every image with fast-reid's label smoothing: 1 - e for the class, e / (K - 1) for each other.

    Args:
        logits: (…, B, K), K above 1.
        label: (B) classes, the same along all leading dimensions.
        smoothing: e.

    Returns:
        (…, B).
    """
    log_share = F.log_softmax(logits.float(), dim=-1)
    own = log_share.gather(-1, label.expand(logits.shape[:-1])[..., None])[..., 0]
    others = smoothing / (logits.shape[-1] - 1) * (log_share.sum(dim=-1) - own)
    return -(1 - smoothing) * own - others
