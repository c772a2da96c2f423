"""What every family of trunks gives, whatever it is inside."""

from typing import NamedTuple

from torch import Tensor, nn


class Maps(NamedTuple):
    """What a trunk makes of images.

    Args:
        map: (B, D, h, w), features where they are in the image.
        token: (B, D), a feature of the whole image; None of a trunk that has none.
    """

    map: Tensor
    token: Tensor | None


class Trunk(nn.Module):
    """A network's main part, without pooling and head."""

    num_features: int

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, H, W) to maps of `num_features` channels."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """Its residual or transformer blocks in their order: what can be run again in a backward pass, one by one."""
        raise NotImplementedError
