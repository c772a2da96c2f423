"""OSNets (Zhou et al. 2019, arXiv 1905.00953), and those with instance norms (2021, arXiv 1910.06827)."""

from typing import Final

from torch import Tensor, nn

from lupctl.core.choices import OsnetArch
from lupctl.core.formats.weights.osnet_plan import OSNET_SIZES, OsnetKind
from lupctl.core.training.nets.osnet.blocks import Convolution, InstanceNorm, OmniScaleBlock
from lupctl.core.training.nets.resnet.layout import Convolutional
from lupctl.core.training.nets.trunk import Maps, Trunk

# Of the two blocks of each of the three stages; the last one is what AIN's search found.
INSTANCE_NORMS: Final[dict[OsnetKind, tuple[tuple[InstanceNorm, InstanceNorm], ...]]] = {
    "plain": (("none", "none"), ("none", "none"), ("none", "none")),
    "ibn": (("sum", "sum"), ("none", "none"), ("none", "none")),
    "ain": (("residual", "residual"), ("none", "residual"), ("residual", "none")),
}


class OsnetTrunk(Convolutional, Trunk):
    """An OSNet without its pooling, its layer `fc` and its classifier.

    Our keys are torchreid's, but for the streams of a block and the layers between stages, which its two kinds of
    networks call by different names; see `lupctl.core.training.nets.foreign.osnet`.

    Args:
        arch: kind and width.
    """

    def __init__(self, arch: OsnetArch) -> None:
        super().__init__()
        kind, (stem, *stages) = OSNET_SIZES[arch]
        first, second, third = INSTANCE_NORMS[kind]
        self.conv1 = Convolution(3, stem, 7, stride=2, instance=kind != "plain")
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = _build_stage(stem, stages[0], first)
        self.pool2 = Convolution(stages[0], stages[0])
        self.conv3 = _build_stage(stages[0], stages[1], second)
        self.pool3 = Convolution(stages[1], stages[1])
        self.conv4 = _build_stage(stages[1], stages[2], third)
        self.conv5 = Convolution(stages[2], stages[2])
        self.avgpool = nn.AvgPool2d(2, stride=2)
        self.num_features = stages[2]
        self._initialise()

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Maps:
        """(B, 3, H, W) to the map (B, num_features, H/16, W/16); no token."""
        x = self.maxpool(self.relu(self.conv1(self.lay_out(images))))
        x = self.avgpool(self.relu(self.pool2(self.conv2(x))))
        x = self.avgpool(self.relu(self.pool3(self.conv3(x))))
        return Maps(self.relu(self.conv5(self.conv4(x))), None)

    def all_blocks(self) -> list[nn.Module]:
        """The omni-scale blocks of the three stages."""
        return [*self.conv2, *self.conv3, *self.conv4]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _build_stage(channels: int, out: int, instance: tuple[InstanceNorm, InstanceNorm]) -> nn.Sequential:
    first, second = instance
    return nn.Sequential(OmniScaleBlock(channels, out, instance=first), OmniScaleBlock(out, out, instance=second))
