"""SOLIDER's semantic controller: maps that a number in [0, 1] turns from appearance to the meaning of body parts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def condition(weight: Tensor) -> Tensor:
    """(B) semantic weights as the controller takes them, (B, 2): the weight and what is left of 1."""
    return torch.stack([weight, 1 - weight], dim=-1)


def modulate(tokens: Tensor, scale: nn.Linear, shift: nn.Linear, given: Tensor) -> Tensor:
    """Tokens scaled and shifted by channel, alike in every place (Chen et al. 2023, arXiv 2303.17602, section 3.3).

    Args:
        tokens: (B, h, w, C).
        scale, shift: from two numbers to C.
        given: (B, 2) of each image, or (1, 2) of all, see `condition`.
    """
    factor = F.softplus(scale(given))[:, None, None, :]
    return tokens * factor + shift(given)[:, None, None, :]  # type: ignore[no-any-return]
