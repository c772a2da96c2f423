"""Pooling a trunk's maps to one vector."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.trunk import Maps


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with a learnable power (Radenovic et al. 2017, arXiv 1711.02512).

    Args:
        power: initial p; 1 is the average, large values approach the maximum.
        floor: activations are clamped here before the power.
    """

    # Length of the vector in multiples of D.
    widening: ClassVar[int] = 1

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

    widening: ClassVar[int] = 1

    def forward(self, maps: Maps) -> Tensor:
        """Maps of D channels to (B, D); the token is not used."""
        # The same as adaptive pooling to one pixel, to the last bit, but without the copy it makes to change strides,
        # which would end up in an exported graph.
        return maps.map.mean(dim=(2, 3))


class ClassToken(nn.Module):
    """The class token of a vision transformer."""

    widening: ClassVar[int] = 1

    def forward(self, maps: Maps) -> Tensor:
        """Maps with a token to (B, D)."""
        assert maps.token is not None
        return maps.token


class ClassAndParts(nn.Module):
    """The class token, then the mean of the part tokens, as in PASS (Zhu et al. 2022, arXiv 2203.03931)."""

    widening: ClassVar[int] = 2

    def forward(self, maps: Maps) -> Tensor:
        """Maps with part tokens to (B, 2 D)."""
        return join_parts(stack_tokens(maps))


def stack_tokens(maps: Maps) -> Tensor:
    """Class token and part tokens of a trunk that has them, (B, 1 + P, D)."""
    assert maps.token is not None
    assert maps.parts is not None
    return torch.cat([maps.token[:, None], maps.parts], dim=1)


def join_parts(tokens: Tensor) -> Tensor:
    """(B, 1 + P, D) to (B, 2 D): the first token, then the mean of the others."""
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


Pool = Average | GeneralisedMean | ClassToken | ClassAndParts
