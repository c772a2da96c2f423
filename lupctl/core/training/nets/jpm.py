"""TransReID's jigsaw patch module (He et al. 2021, arXiv 2102.04378, 3.2).

A published file's keys, and ours:

| published | ours |
|---|---|
| `base.{cls_token, pos_embed, sie_embed, patch_embed.*}`, `base.blocks.N.*` | `backbone.*` |
| `base.blocks.LAST.*`, `base.norm.*`, `base.fc.*`, which nothing uses | none |
| `b1.0.*`, `b1.1.*`, `b2.0.*`, `b2.1.*` | `head.b1.0.*`, … |
| `bottleneck.*`, `bottleneck_1.*` … `bottleneck_4.*` | `head.necks.0.*`, `head.necks.1.*` … `head.necks.4.*` |
| `classifier.weight`, `classifier_1.weight` … | `head.classifiers.0.weight`, `head.classifiers.1.weight` … |
"""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.plan import JpmHead
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.heads import build_classifier, build_neck
from lupctl.core.training.nets.vit.blocks import first_token
from lupctl.core.training.nets.vit.trunk import ViTTrunk, build_block, build_norm, initialise_layer

# Prefixes of the keys that only make sense for a network's own training set.
JPM_CLASSIFIERS: Final = ("head.classifiers.",)
# Prefixes of the keys that no pre-trained trunk has.
JPM_NEW_PARTS: Final = ("head.necks.", "head.classifiers.")


def rearrange(patches: Tensor, *, shift: int, groups: int) -> Tensor:
    """Shift and shuffle: patches of the whole image come into every stretch of the sequence.

    Args:
        patches: (B, N, D), without the class token.
        shift: the first `shift` - 1 patches move to the end; published code counts them with the class token.
        groups: the sequence is cut into so many stretches, whose patches then alternate. If they do not divide N,
            copies of the second-to-last token come first.

    Returns:
        (B, N, D), or more tokens with those copies.
    """
    moved = torch.cat([patches[:, shift - 1 :], patches[:, : shift - 1]], dim=1)
    batch, count, dim = moved.shape
    lacking = -count % groups
    if lacking:
        moved = torch.cat([moved, moved[:, -2:-1].expand(-1, lacking, -1)], dim=1)
    return moved.view(batch, groups, -1, dim).transpose(1, 2).reshape(batch, -1, dim)


class JpmHeads(nn.Module):
    """Two copies of the last block, a neck and a classifier for each feature.

    Args:
        trunk: gives the block's sizes.
        plan: of the head.
    """

    def __init__(self, trunk: ViTPlan, plan: JpmHead) -> None:
        super().__init__()
        self.b1 = nn.Sequential(build_block(trunk), build_norm(trunk))
        self.b1.apply(initialise_layer)
        self.b2 = copy.deepcopy(self.b1)
        count = 1 + plan.parts
        self.necks = nn.ModuleList(build_neck(trunk.dim) for _ in range(count))
        of_each = range(count if plan.classes else 0)
        self.classifiers = nn.ModuleList(build_classifier(trunk.dim, plan.classes) for _ in of_each)


class JpmNetwork(nn.Module):
    """A vision transformer whose last block sees all patches once, and each of several groups of them.

    Args:
        trunk: sizes; the network's backbone has one block less, and no last norm.
        plan: of the head.
    """

    def __init__(self, trunk: ViTPlan, plan: JpmHead) -> None:
        super().__init__()
        self.plan = plan
        self.backbone = ViTTrunk(trunk, is_cut=True)
        self.head = JpmHeads(trunk, plan)

    @property
    def needs_cameras(self) -> bool:
        """Whether it has a table of cameras."""
        return self.backbone.needs_cameras

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the features before their necks (B, 1 + parts, D) and class logits (B, 1 + parts, C).

        The first feature is that of all patches.
        """
        features = self.features(images, cameras)
        necked = self._neck(features)
        logits = [layer(one) for layer, one in zip(self.head.classifiers, necked.unbind(1), strict=True)]
        return features, torch.stack(logits, dim=1)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the retrieval feature (B, (1 + parts) * D): each local one over the number of parts."""
        features = self.features(images, cameras)
        if self.plan.feature == "after":
            features = self._neck(features)
        return torch.cat([features[:, :1], features[:, 1:] / self.plan.parts], dim=1).flatten(1)

    def features(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to (B, 1 + parts, D), before the necks.

        Raises:
            UsageError: there are fewer patches than parts.
        """
        tokens = self.backbone.tokens(images, cameras)
        token, patches = tokens[:, :1], tokens[:, 1:]
        length = patches.shape[1] // self.plan.parts
        if not length:
            raise UsageError(
                f"images of {images.shape[2]} x {images.shape[3]} have {patches.shape[1]} patches, "
                f"fewer than the {self.plan.parts} parts of a jpm",
                hint="--set pixels.height=256 --set pixels.width=128",
            )
        parts, (batch, _, dim) = self.plan.parts, token.shape
        drop, last = self.backbone.drop, self.backbone.plan.depth - 1
        block, norm = self.head.b1
        whole = norm(first_token(block, tokens, drop.kept(last, batch)))
        shuffled = rearrange(patches, shift=self.plan.shift, groups=self.plan.groups)
        stretches = shuffled[:, : parts * length].reshape(batch, parts, length, dim)
        # All parts of all images in one pass, as so many images of their own; leftovers are dropped.
        each = torch.cat([token[:, None].expand(-1, parts, -1, -1), stretches], dim=2).flatten(0, 1)
        block, norm = self.head.b2
        local = norm(first_token(block, each, drop.kept(last, batch, runs=range(1, 1 + parts))))
        return torch.cat([whole[:, None], local.view(batch, parts, dim)], dim=1)

    def all_blocks(self) -> list[nn.Module]:
        """Those of its trunk, and the two copies of the last one; the second takes all parts of all images at once."""
        return [*self.backbone.all_blocks(), self.head.b1[0], self.head.b2[0]]

    def trunk_modules(self) -> list[nn.Module]:
        """The pre-trained parts: the trunk and the two copies of its last block."""
        return [self.backbone, self.head.b1, self.head.b2]

    def _neck(self, features: Tensor) -> Tensor:
        necked = [neck(one) for neck, one in zip(self.head.necks, features.unbind(1), strict=True)]
        return torch.stack(necked, dim=1)


def spread_blocks(trunk: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """A whole trunk's tensors under the keys of a jpm network: its last block and norm twice.

    Args:
        trunk: by the keys of a `ViTTrunk` with all its blocks.
        depth: number of its blocks.

    Returns:
        tensors by the network's keys; what no trunk has is under `backbone.`, for a strict loader to refuse.
    """
    spread: dict[str, Tensor] = {}
    last = f"blocks.{depth - 1}."
    for key, value in trunk.items():
        if key.startswith(last):
            spread |= {f"head.{branch}.0.{key.removeprefix(last)}": value for branch in ("b1", "b2")}
        elif key.startswith("norm."):
            spread |= {f"head.{branch}.1.{key.removeprefix('norm.')}": value for branch in ("b1", "b2")}
        else:
            spread[f"backbone.{key}"] = value
    return spread
