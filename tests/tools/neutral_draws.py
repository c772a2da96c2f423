"""Draws that change nothing, for tests that change one thing."""

import torch
from torch import Tensor

from lupctl.core.training.views.drawn import DrawTensors


def neutral_draws(size: Tensor) -> DrawTensors:
    """Draws that leave whole images of these heights and widths, (N, 2), alone."""
    number = len(size)
    return DrawTensors(
        box=torch.cat([torch.zeros(number, 2), size.float()], dim=1),
        shift=torch.zeros(number, 2, dtype=torch.int32),
        flip=torch.zeros(number, dtype=torch.bool),
        grey=torch.zeros(number, dtype=torch.bool),
        radius=torch.zeros(number),
        solarise=torch.zeros(number, dtype=torch.bool),
        jitter=torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(number, 1),
        jitter_order=torch.full((number, 4), -1),
        erase=torch.zeros(number, 4, dtype=torch.int32),
        noise=torch.zeros(number, 2, dtype=torch.int64),
    )
