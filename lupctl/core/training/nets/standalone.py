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
        camera: for a network with a table of cameras: the row that every image gets; None takes rows as an input.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    camera: Tensor | None

    def __init__(
        self, network: Network, *, mean: Sequence[float], std: Sequence[float], camera: int | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1))
        # One row for any number of images: what it adds is the same for all, and so a constant of an exported graph.
        self.register_buffer("camera", None if camera is None else torch.tensor([camera]))

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, H, W, 3) uint8 RGB of the network's size to retrieval features (B, D) float32 of unit length.

        Args:
            images: B of them.
            cameras: (B) int64, as `embed` takes them; only without a fixed `camera`.
        """
        view = images.permute(0, 3, 1, 2).float() / 255
        rows = cameras if self.camera is None else self.camera
        features = self.network.embed((view - self.pixel_mean) / self.pixel_std, rows)
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=SHORTEST)
        return features / length  # type: ignore[no-any-return]
