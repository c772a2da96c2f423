"""The two residual blocks of He et al. 2015, arXiv 1512.03385, with torchvision's keys and order of construction.

torchvision has them too, but importing it takes as long as dumping an image: it also imports detection and sympy.
"""

from typing import ClassVar

from torch import Tensor, nn

from lupctl.core.training.nets.resnet.layout import StridedConv2d
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d


class BasicBlock(nn.Module):
    """Two 3x3 convolutions.

    Args:
        channels: of the input.
        planes: of the output.
        stride: of the first convolution.
        downsample: makes the shortcut fit the output; None if it fits already.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = StridedConv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1: nn.Module = GroupedBatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = GroupedBatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3x3 convolution, which carries the stride, between two 1x1 convolutions.

    Args:
        channels: of the input.
        planes: of the middle; the output has four times as many.
        stride: of the 3x3 convolution.
        downsample: makes the shortcut fit the output; None if it fits already.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1: nn.Module = GroupedBatchNorm2d(planes)
        self.conv2 = StridedConv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = GroupedBatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = GroupedBatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 4 planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]
