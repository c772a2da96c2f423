"""The parts of an OSNet (Zhou et al. 2019, arXiv 1905.00953): lite convolutions, one gate, four streams."""

from typing import Final, Literal

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.resnet.layout import StridedConv2d
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d

# Where a block has an instance norm: nowhere, on the sum with its shortcut (IBN), or before that sum, in place of the
# batch norm there (AIN; Zhou et al. 2021, arXiv 1910.06827).
InstanceNorm = Literal["none", "sum", "residual"]
# Lite convolutions in a row of each stream of a block.
STREAMS: Final = (1, 2, 3, 4)
# Channels of a block for each one in the middle of its gate, and of its output for each one inside.
SQUEEZE: Final = 16
EXPANSION: Final = 4


class Convolution(nn.Module):
    """A convolution without bias, and its norm.

    Args:
        channels, out: of input and output.
        side: of the kernel, which is odd; the map is padded to keep its size.
        stride: of the convolution.
        instance: norms each image by itself.
    """

    def __init__(self, channels: int, out: int, side: int = 1, *, stride: int = 1, instance: bool = False) -> None:
        super().__init__()
        kind = nn.Conv2d if stride == 1 else StridedConv2d
        self.conv = kind(channels, out, side, stride=stride, padding=side // 2, bias=False)
        self.bn: nn.Module = nn.InstanceNorm2d(out, affine=True) if instance else GroupedBatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H / stride, W / stride), without an activation."""
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class LiteConvolution(nn.Module):
    """A 1x1 convolution, then a 3x3 one within each channel, batch norm and ReLU.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = GroupedBatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        return self.relu(self.bn(self.conv2(self.conv1(x))))  # type: ignore[no-any-return]


class Gate(nn.Module):
    """The aggregation gate: a factor in (0, 1) for each channel of each image, from the means of all channels.

    Args:
        channels: of the stream.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        return x * torch.sigmoid(self.fc2(self.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class OmniScaleBlock(nn.Module):
    """A residual block of four streams that see 3, 5, 7 and 9 pixels, and whose one gate weighs each of them.

    Args:
        channels, out: of input and output.
        instance: where it has an instance norm.
    """

    def __init__(self, channels: int, out: int, *, instance: InstanceNorm) -> None:
        super().__init__()
        inner = out // EXPANSION
        self.conv1 = Convolution(channels, inner)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LiteConvolution(inner) for _ in range(length))) for length in STREAMS
        )
        self.gate = Gate(inner)
        self.conv3 = Convolution(inner, out)
        self.downsample = Convolution(channels, out) if channels != out else None
        self.instance = instance
        if instance == "residual":
            self.conv3.bn = nn.Identity()
        if instance != "none":
            self.IN = nn.InstanceNorm2d(out, affine=True)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.conv1(x))
        first, *others = (self.gate(stream(inner)) for stream in self.streams)
        for one in others:
            first = first + one
        residual = self.conv3(first)
        if self.instance == "residual":
            residual = self.IN(residual)
        out = residual + shortcut
        return self.relu(self.IN(out) if self.instance == "sum" else out)  # type: ignore[no-any-return]
