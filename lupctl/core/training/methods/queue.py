"""The features of the last batches, kept as negatives (He et al. 2020, arXiv 1911.05722)."""

import torch
from torch import Tensor, nn

_SEED = 0x5155


class FeatureQueue(nn.Module):
    """K columns of unit length; new ones replace the oldest.

    Args:
        dim: D of a feature.
        size: K.
        seed: of the random content at the start.
    """

    features: Tensor
    pointer: Tensor

    def __init__(self, dim: int, size: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed ^ _SEED)
        self.register_buffer("features", nn.functional.normalize(torch.randn(dim, size, generator=generator), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Writes B features (B, D) at the pointer; what does not fit before the end goes to the start.

        The queue's size need not be a multiple of B (65,536 and 2,560 are not), and the pointer may stay at the end.
        """
        size = self.features.shape[1]
        features = features[-size:]
        start = int(self.pointer)
        tail = min(len(features), size - start)
        self.features[:, start : start + tail] = features[:tail].T
        self.features[:, : len(features) - tail] = features[tail:].T
        self.pointer[0] = start + len(features) if start + len(features) <= size else start + len(features) - size
