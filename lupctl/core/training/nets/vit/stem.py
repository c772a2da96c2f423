"""From an image to a grid of patches: one convolution, or the IBN convolution stem (arXiv 2111.12084, 3.3)."""

from typing import assert_never

from torch import Tensor, nn

from lupctl.core.choices import Stem
from lupctl.core.training.nets.resnet.ibn import InstanceBatchNorm
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d

ICS_CHANNELS = 64


class PatchStem(nn.Module):
    """A convolution over patches, which overlap if the stride is smaller than the patch.

    Args:
        dim: D.
        patch, stride: in pixels.
    """

    def __init__(self, dim: int, *, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, h, w); pixels beyond the last whole patch are not used."""
        return self.proj(images)  # type: ignore[no-any-return]


class IcsStem(nn.Module):
    """Three convolutions with norms, the first two with IBN-a, at half of the image's size; then patches of 8 x 8.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        wide = ICS_CHANNELS
        self.conv = nn.Sequential(
            nn.Conv2d(3, wide, 7, stride=2, padding=3, bias=False),
            InstanceBatchNorm(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            InstanceBatchNorm(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            GroupedBatchNorm2d(wide),
            nn.ReLU(inplace=True),
        )
        self.proj = nn.Conv2d(wide, dim, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, H / 16, W / 16)."""
        return self.proj(self.conv(images))  # type: ignore[no-any-return]


def build_stem(stem: Stem, dim: int, *, patch: int, stride: int) -> PatchStem | IcsStem:
    """The stem with this name."""
    match stem:
        case "patch":
            return PatchStem(dim, patch=patch, stride=stride)
        case "ics":
            return IcsStem(dim)
        case _:
            assert_never(stem)
