"""The multiple granularity network of LUPerson's fine-tuning, with the keys of its published files.

Wang et al. 2018, arXiv 1804.01438, with the heads, the pooling and the extra batch norm of
https://github.com/DengpanFu/LUPerson. Pixel constants are not part of the network here; a checkpoint's header has them.
"""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.pooling import GeneralisedMean
from lupctl.core.training.nets.resnet.layout import Convolutional
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm2d
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from lupctl.core.training.nets.trunk import Maps

# The order of a feature's parts, and of the heads in every tensor of eight.
HEADS: Final = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
NUM_BRANCHES: Final = 3
# Prefixes of the keys that only make sense for a network's own training set.
MGN_CLASSIFIERS: Final = tuple(f"{head}_head.classifier." for head in HEADS)
# Prefixes of the keys that no pre-trained trunk has.
NEW_PARTS: Final = (*(f"{head}_head." for head in HEADS), "heads_extra_bn_")
STEM: Final = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5}


class PartHead(nn.Module):
    """One of the eight heads: GeM pooling, 1x1 convolution, batch norm without shift; and its classifier's weight.

    Args:
        num_features: channels of the map.
        embedding: E.
        num_classes: C; 0 leaves the classifier out.
    """

    def __init__(self, num_features: int, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.pool_layer = GeneralisedMean()
        reduce = nn.Conv2d(num_features, embedding, 1, bias=False)
        nn.init.kaiming_normal_(reduce.weight, mode="fan_out")
        norm = GroupedBatchNorm2d(embedding)
        nn.init.normal_(norm.weight, 1.0, 0.02)
        norm.bias.requires_grad_(False)
        self.bottleneck = nn.Sequential(reduce, norm)
        self.classifier = nn.Linear(embedding, num_classes, bias=False) if num_classes else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H, W) to the feature after the neck, (B, E)."""
        pooled = self.pool_layer(Maps(features, None))[:, :, None, None]
        return self.bottleneck(pooled).flatten(1)  # type: ignore[no-any-return]


class MgnNetwork(Convolutional):
    """A shared stem, three branches and eight heads.

    The stem ends with the first block of the third stage. Each branch is a copy of what follows, with the blocks
    counted from 0 again, as in the published files. The second and third branch never have a stride.

    Args:
        trunk: provides the stem and the first branch with weights and strides.
        fine: the same depth and width with last_stride 1, for the other branches.
        embedding: E, features of a head.
        num_classes: C; 0 leaves the classifiers out, for retrieval alone.
        extra_bn: batch norm on each branch's map before it is cut into stripes.
    """

    def __init__(
        self, trunk: ResNetTrunk, fine: ResNetTrunk, *, embedding: int, num_classes: int, extra_bn: bool
    ) -> None:
        super().__init__()
        fine.load_state_dict(trunk.state_dict())
        self.backbone = nn.Sequential(
            trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1, trunk.layer2, trunk.layer3[0]
        )
        self.b1 = _build_branch(trunk)
        self.b2 = _build_branch(fine)
        self.b3 = copy.deepcopy(self.b2)
        maps, size = trunk.num_features, (trunk.num_features, embedding, num_classes)
        self.heads_extra_bn_b1 = GroupedBatchNorm2d(maps) if extra_bn else nn.Identity()
        self.heads_extra_bn_b2 = GroupedBatchNorm2d(maps) if extra_bn else nn.Identity()
        self.heads_extra_bn_b3 = GroupedBatchNorm2d(maps) if extra_bn else nn.Identity()
        self.b1_head = PartHead(*size)
        self.b2_head = PartHead(*size)
        self.b21_head = PartHead(*size)
        self.b22_head = PartHead(*size)
        self.b3_head = PartHead(*size)
        self.b31_head = PartHead(*size)
        self.b32_head = PartHead(*size)
        self.b33_head = PartHead(*size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), H a multiple of 96, to the heads' features after their necks (B, 8, E), in `HEADS`' order."""
        shared = self.backbone(self.lay_out(images))
        first = self.heads_extra_bn_b1(self.b1(shared))
        second = self.heads_extra_bn_b2(self.b2(shared))
        third = self.heads_extra_bn_b3(self.b3(shared))
        upper, lower = second.chunk(2, dim=2)
        top, middle, bottom = third.chunk(3, dim=2)
        parts = [self.b1_head(first), self.b2_head(second), self.b3_head(third)]
        parts += [self.b21_head(upper), self.b22_head(lower)]
        parts += [self.b31_head(top), self.b32_head(middle), self.b33_head(bottom)]
        return torch.stack(parts, dim=1)

    @property
    def needs_cameras(self) -> bool:
        """Never: its trunk is a residual one."""
        return False

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the retrieval feature (B, 8 * E), not normalised; evaluation normalises the whole."""
        return self(images).flatten(1)  # type: ignore[no-any-return]

    def classifier_weight(self) -> Tensor:
        """(8, C, E) rows of the classifiers, in `HEADS`' order."""
        heads = [self.b1_head, self.b2_head, self.b3_head, self.b21_head]
        heads += [self.b22_head, self.b31_head, self.b32_head, self.b33_head]
        weights = [head.classifier.weight for head in heads if head.classifier is not None]
        assert weights, "a network without classifiers only gives features"
        return torch.stack(weights)

    def all_blocks(self) -> list[nn.Module]:
        """The residual blocks of the stem, then those of one branch after the other."""
        stages = [*self.backbone[STEM["layer1"] :], *self.b1, *self.b2, *self.b3]
        return [block for stage in stages for block in (stage if isinstance(stage, nn.Sequential) else [stage])]

    def trunk_modules(self) -> list[nn.Module]:
        """The pre-trained parts: stem and branches."""
        return [self.backbone, self.b1, self.b2, self.b3]


def _build_branch(trunk: ResNetTrunk) -> nn.Sequential:
    # A slice of a Sequential would keep the old numbers; the published files count from 0.
    return copy.deepcopy(nn.Sequential(nn.Sequential(*list(trunk.layer3)[1:]), trunk.layer4))


def spread_trunk(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trunk's tensors under the keys of this network: stem once, the rest in each of the three branches.

    Args:
        trunk: by torchvision's keys, without classifier.

    Returns:
        tensors by this network's keys; keys that no trunk has are left as they are, for a strict loader to refuse.
    """
    spread: dict[str, Tensor] = {}
    for key, value in trunk.items():
        layer, _, rest = key.partition(".")
        block, _, inside = rest.partition(".")
        if layer in STEM:
            spread[f"backbone.{STEM[layer]}.{rest}"] = value
        elif layer == "layer3" and block == "0":
            spread[f"backbone.6.{inside}"] = value
        elif layer == "layer3" and block.isdigit():
            spread |= {f"b{branch}.0.{int(block) - 1}.{inside}": value for branch in range(1, NUM_BRANCHES + 1)}
        elif layer == "layer4":
            spread |= {f"b{branch}.1.{rest}": value for branch in range(1, NUM_BRANCHES + 1)}
        else:
            spread[key] = value
    return spread
