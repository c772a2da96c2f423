"""The networks of converted files, and their features beside those of a reference."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.formats.weights.file import load_strictly, read_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader
from lupctl.core.training.nets.build import Network, build_network


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in float64, for a reference without rounding."""
    return {key: value.double() if value.is_floating_point() else value for key, value in state.items()}


def restore(path: str) -> tuple[Network, CheckpointHeader]:
    """The network of a checkpoint, in evaluation mode."""
    checkpoint = read_checkpoint(Path(path))
    network = build_network(checkpoint.header.network).eval()
    load_strictly(network, checkpoint.tensors, origin=path)
    return network, checkpoint.header


def draw_images(size: tuple[int, int], count: int = 2) -> Tensor:
    """Normal pixels."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(3))


def check_features(network: Network, images: Tensor, cameras: Sequence[int] | None, wanted: Tensor) -> None:
    """Compares a network's features with those of a reference, as they are and of unit length."""
    rows = None if cameras is None else torch.tensor(cameras)
    with torch.no_grad():
        found = network.embed(images, rows).double()
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 5e-5
    assert (F.normalize(found) - F.normalize(wanted)).abs().max() < 2e-6
