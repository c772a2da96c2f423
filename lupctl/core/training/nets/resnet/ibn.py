"""IBN-a: half of a batch norm's channels are normalised per image (Pan et al. 2018, arXiv 1807.09441)."""

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d


class InstanceBatchNorm(nn.Module):
    """Instance norm over the first half of the channels, batch norm over the others; keys of the published networks.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.BN = GroupedBatchNorm2d(channels - self.num_instance)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        first, second = features[:, : self.num_instance], features[:, self.num_instance :]
        return torch.cat([self.IN(first), self.BN(second)], dim=1)
