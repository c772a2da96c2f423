"""PASS's head on part tokens (Zhu et al. 2022, arXiv 2203.03931).

A published file's keys, and ours, for three parts:

| published | ours |
|---|---|
| `base.cls_token` | `backbone.cls_token` |
| `base.part_token1` … `3`, each (1, 1, D) | `backbone.part_tokens` (1, 3, D) |
| `base.cls_pos`, `base.part1_pos` … `3`, `base.pos_embed` (1, N, D) | `backbone.pos_embed` (1, 4 + N, D), in order |
| `base.{patch_embed, blocks.N, norm}.*` | `backbone.*` |
| `base.fc.*`, which nothing uses | none |
| `bottleneck.*`, `bottleneck_1.*` … `bottleneck_3.*` | `head.necks.0.*`, `head.necks.1.*` … `head.necks.3.*` |
| `classifier.weight` | `head.classifier.weight` |
"""

import torch
from torch import Tensor, nn

from lupctl.core.choices import NeckFeature
from lupctl.core.training.nets.heads import build_classifier, build_neck
from lupctl.core.training.nets.pooling import join_parts, stack_tokens
from lupctl.core.training.nets.trunk import Trunk


class PartHeads(nn.Module):
    """A neck for each token, and a classifier of the class token with the mean of the parts.

    Args:
        num_features: D.
        num_parts: P.
        num_classes: C; 0 for no classifier.
    """

    def __init__(self, num_features: int, num_parts: int, num_classes: int) -> None:
        super().__init__()
        self.necks = nn.ModuleList(build_neck(num_features) for _ in range(1 + num_parts))
        self.classifier = build_classifier(2 * num_features, num_classes) if num_classes else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + P, D) to the same shape, after the necks."""
        return torch.stack([neck(one) for neck, one in zip(self.necks, tokens.unbind(1), strict=True)], dim=1)


class PartsNetwork(nn.Module):
    """A vision transformer with part tokens.

    Args:
        backbone: gives the tokens.
        num_parts: P.
        num_classes: C.
        feature: of retrieval, after or before the necks.
    """

    def __init__(self, backbone: Trunk, *, num_parts: int, num_classes: int, feature: NeckFeature) -> None:
        super().__init__()
        self.feature = feature
        self.backbone = backbone
        self.head = PartHeads(backbone.num_features, num_parts, num_classes)

    @property
    def needs_cameras(self) -> bool:
        """Whether it has a table of cameras."""
        return self.backbone.needs_cameras

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the feature before the necks (B, 2 * D) and class logits (B, C)."""
        assert self.head.classifier is not None, "a network without a classifier is not trained"
        tokens = stack_tokens(self.backbone(images, cameras))
        return join_parts(tokens), self.head.classifier(join_parts(self.head(tokens)))

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the retrieval feature (B, 2 * D): the class token, then the mean of the parts."""
        tokens = stack_tokens(self.backbone(images, cameras))
        return join_parts(self.head(tokens) if self.feature == "after" else tokens)

    def all_blocks(self) -> list[nn.Module]:
        """Those of its trunk."""
        return self.backbone.all_blocks()

    def trunk_modules(self) -> list[nn.Module]:
        """The pre-trained part: the trunk."""
        return [self.backbone]
