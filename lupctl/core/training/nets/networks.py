"""Whole networks: a trunk, its pooling and a head."""

import torch
from torch import Tensor, nn

from lupctl.core.choices import NeckFeature
from lupctl.core.training.nets.heads import BatchNormNeck, Projection
from lupctl.core.training.nets.pooling import ClassToken, Pool
from lupctl.core.training.nets.trunk import Trunk


class Embedding(nn.Module):
    """Trunk and pooling without a head.

    Args:
        backbone: the trunk.
        pool: from its maps to a vector.
    """

    def __init__(self, backbone: Trunk, pool: Pool) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.num_features = backbone.num_features * pool.widening

    @property
    def needs_cameras(self) -> bool:
        """Whether the trunk has a table of cameras and cannot do without the images' cameras."""
        return self.backbone.needs_cameras

    def all_blocks(self) -> list[nn.Module]:
        """Those of its trunk."""
        return self.backbone.all_blocks()

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and rows of cameras (B), where needed, to the retrieval feature (B, D), not normalised."""
        if isinstance(self.pool, ClassToken) and not torch.is_grad_enabled():
            return self.backbone.class_token(images, cameras)
        return self.pool(self.backbone(images, cameras))  # type: ignore[no-any-return]


class ContrastiveNetwork(Embedding):
    """Trunk, pooling and a projection to the contrastive space."""

    def __init__(self, backbone: Trunk, pool: Pool, *, dim: int) -> None:
        super().__init__(backbone, pool)
        self.head = Projection(self.num_features, dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, dim) of unit length."""
        return self.project(self.embed(images))

    def project(self, features: Tensor) -> Tensor:
        """(B, D) pooled features to (B, dim) of unit length."""
        return nn.functional.normalize(self.head(features).float(), dim=1)


class ReidNetwork(Embedding):
    """Trunk, pooling and BNNeck: "bag of tricks" (Luo et al. 2019).

    Args:
        backbone, pool: from an image to a vector.
        num_classes: K; 0 for a network without a classifier.
        feature: of retrieval, after or before the neck.
    """

    def __init__(self, backbone: Trunk, pool: Pool, *, num_classes: int, feature: NeckFeature = "after") -> None:
        super().__init__(backbone, pool)
        self.feature = feature
        self.head = BatchNormNeck(self.num_features, num_classes)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the feature before the neck (B, D) and class logits (B, K).

        Without a classifier, the feature after the neck (B, D) is in the place of the logits.
        """
        features = super().embed(images, cameras)
        after = self.head(features)
        return features, after if self.head.classifier is None else self.head.classifier(after)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the feature after or before the neck (B, D), not normalised."""
        features = super().embed(images, cameras)
        return self.head(features) if self.feature == "after" else features

    def trunk_modules(self) -> list[nn.Module]:
        """The pre-trained part: the trunk."""
        return [self.backbone]
