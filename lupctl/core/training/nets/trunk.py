"""The common interface of all families of trunks."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Maps(NamedTuple):
    """The output of a trunk.

    Args:
        map: (B, D, h, w), features by position in the image.
        token: (B, D), a feature of the whole image; None from a trunk that has none.
        parts: (B, P, D), features of parts of it; None from a trunk that has none.
    """

    map: Tensor
    token: Tensor | None
    parts: Tensor | None = None


class Trunk(nn.Module, ABC):
    """A network's main part, without pooling and head."""

    num_features: int

    @abstractmethod
    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Maps:
        """(B, 3, H, W) to maps of `num_features` channels.

        Args:
            images: normalised.
            cameras: (B) int64, where `needs_cameras`: rows of the table of cameras, or the constants of
                `lupctl.core.training.nets.vit.side`; not used by other trunks.
        """

    def class_token(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the token (B, D) of `forward`, for a trunk that has one and no need of the map."""
        token = self(images, cameras).token
        assert token is not None
        return token  # type: ignore[no-any-return]

    @abstractmethod
    def all_blocks(self) -> list[nn.Module]:
        """Its residual or transformer blocks in order: the units that can be recomputed in a backward pass."""

    @property
    def needs_cameras(self) -> bool:
        """Whether it has a table of cameras and cannot do without."""
        return False
