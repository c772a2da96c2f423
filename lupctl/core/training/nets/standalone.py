"""A network that takes raw pixels and gives features that can be compared directly."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.build import Network

# The smallest divisor, as in torch.nn.functional.normalize; a feature of zeros stays zero.
SHORTEST: Final = 1e-12


class StandaloneNetwork(nn.Module):
    """A retrieval network that also normalises its pixels and scales its features to unit length.

    Args:
        network: in evaluation mode.
        mean, std: of RGB in [0, 1], those it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB of the network's size to retrieval features (B, D) float32 of unit length."""
        view = images.permute(0, 3, 1, 2).float() / 255
        features = self.network.embed((view - self.mean) / self.std)
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=SHORTEST)
        return features / length  # type: ignore[no-any-return]
