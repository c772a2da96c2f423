"""The loss of naming the part of a body that each token shows (Chen et al. 2023, arXiv 2303.17602, eq. 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def part_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over tokens of the cross entropy, in float32 or better; 0 of none.

    Args:
        logits: (n, R + 1), without a temperature.
        labels: (n) int64.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits if logits.dtype == torch.double else logits.float()
        return F.cross_entropy(wide, labels, reduction="sum")
