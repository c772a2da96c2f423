"""Classification of persons."""

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
