"""Pooling a trunk's maps to one vector."""

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.trunk import Maps


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with a learnable power (Radenovic et al. 2017, arXiv 1711.02512).

    Args:
        power: initial p; 1 is the average, large values approach the maximum.
        floor: activations are clamped here before the power.
    """

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([power]))
        self.floor = floor

    def forward(self, maps: Maps) -> Tensor:
        """Maps of D channels to (B, D); the token is not used."""
        raised = maps.map.clamp(min=self.floor).pow(self.p)
        return raised.mean(dim=(2, 3)).pow(1 / self.p)


class Average(nn.Module):
    """Global average pooling."""

    def forward(self, maps: Maps) -> Tensor:
        """Maps of D channels to (B, D); the token is not used."""
        # The same as adaptive pooling to one pixel, to the last bit, but without the copy it makes to change strides,
        # which would end up in an exported graph.
        return maps.map.mean(dim=(2, 3))


Pool = Average | GeneralisedMean
