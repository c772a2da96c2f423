"""The features of the last batches, kept as negatives (He et al. 2020, arXiv 1911.05722)."""

import torch
from torch import Tensor, nn

_SEED = 0x5155
NO_LABEL = -1


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
        self.pointer[0] = _write_around(self.features.T, features, int(self.pointer))


class LabelledQueue(nn.Module):
    """K columns of unit length, each with the label that its image was trained on; new ones replace the oldest.

    Args:
        dim: D of a feature.
        size: K.
        seed: of the random content at the start, which has no labels.
    """

    features: Tensor
    label: Tensor
    pointer: Tensor

    def __init__(self, dim: int, size: int, *, seed: int) -> None:
        super().__init__()
        start = FeatureQueue(dim, size, seed=seed)
        self.register_buffer("features", start.features)
        self.register_buffer("label", torch.full((size,), NO_LABEL, dtype=torch.long))
        self.register_buffer("pointer", start.pointer)

    @torch.no_grad()
    def push(self, features: Tensor, label: Tensor) -> None:
        """Writes B features (B, D) and their labels (B) at the pointer, around the end."""
        start = int(self.pointer)
        _write_around(self.label, label, start)
        self.pointer[0] = _write_around(self.features.T, features, start)


def _write_around(ring: Tensor, rows: Tensor, start: int) -> int:
    """Writes rows into a ring of K from `start` on, at most K of them, and gives where they end, from 0 to K."""
    size = len(ring)
    rows = rows[-size:]
    tail = min(len(rows), size - start)
    ring[start : start + tail] = rows[:tail]
    ring[: len(rows) - tail] = rows[tail:]
    return start + len(rows) if start + len(rows) <= size else start + len(rows) - size
