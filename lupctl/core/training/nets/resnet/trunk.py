"""Residual trunks (He et al. 2015, arXiv 1512.03385) with torchvision's keys."""

from typing import Final, NamedTuple

from torch import Tensor, nn

from lupctl.core.choices import ResNetArch
from lupctl.core.training.nets.resnet.blocks import BasicBlock, Bottleneck
from lupctl.core.training.nets.resnet.ibn import InstanceBatchNorm
from lupctl.core.training.nets.resnet.layout import Convolutional, StridedConv2d, StridedPointConv2d
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d
from lupctl.core.training.nets.trunk import Maps, Trunk


class Depth(NamedTuple):
    """The kind of block, and the number of blocks in each of the four stages."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]


DEPTHS: Final[dict[ResNetArch, Depth]] = {
    "r18": Depth(BasicBlock, (2, 2, 2, 2)),
    "r50": Depth(Bottleneck, (3, 4, 6, 3)),
    "r101": Depth(Bottleneck, (3, 4, 23, 3)),
    "r152": Depth(Bottleneck, (3, 8, 36, 3)),
}


class ResNetTrunk(Convolutional, Trunk):
    """A ResNet without its pooling and classifier.

    The 3x3 convolution of a bottleneck carries the stride, as in torchvision. At width 64 the keys and shapes are
    torchvision's, so its weights and the published LUPerson ones load without renaming.

    Args:
        arch: depth.
        width: channels of the stem, 64 in the published networks; a narrower trunk is for small machines.
        last_stride: stride of the last stage; 1 doubles the resolution of the final map, as is common in re-id.
        ibn: the first batch norm of every block of the first three stages is IBN-a.
    """

    def __init__(self, arch: ResNetArch, *, width: int = 64, last_stride: int = 2, ibn: bool = False) -> None:
        super().__init__()
        self.conv1 = StridedConv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = GroupedBatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        block, blocks = DEPTHS[arch]
        grown = block.expansion
        self.layer1 = _build_stage(block, width, width, count=blocks[0], stride=1)
        self.layer2 = _build_stage(block, width * grown, width * 2, count=blocks[1], stride=2)
        self.layer3 = _build_stage(block, width * 2 * grown, width * 4, count=blocks[2], stride=2)
        self.layer4 = _build_stage(block, width * 4 * grown, width * 8, count=blocks[3], stride=last_stride)
        self.num_features = width * 8 * grown
        if ibn:
            for stage, planes in ((self.layer1, width), (self.layer2, width * 2), (self.layer3, width * 4)):
                for built in stage:
                    built.bn1 = InstanceBatchNorm(planes)
        self._initialise()

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Maps:
        """(B, 3, H, W) to the map (B, num_features, H/32, W/32), twice as large with last_stride 1; no token."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.lay_out(images)))))
        return Maps(self.layer4(self.layer3(self.layer2(self.layer1(x)))), None)

    def all_blocks(self) -> list[nn.Module]:
        """The residual blocks of the four stages."""
        return [*self.layer1, *self.layer2, *self.layer3, *self.layer4]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _build_stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, *, count: int, stride: int
) -> nn.Sequential:
    expanded = planes * block.expansion
    shortcut = None
    if stride != 1 or channels != expanded:
        shortcut = nn.Sequential(
            StridedPointConv2d(channels, expanded, 1, stride=stride, bias=False), GroupedBatchNorm2d(expanded)
        )
    first = block(channels, planes, stride, shortcut)
    rest = [block(expanded, planes) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)
