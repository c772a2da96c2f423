"""A trunk with torchreid's head: the retrieval feature is what one more layer gives."""

from typing import Final

from torch import Tensor, nn

from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.pooling import Pool
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm1d
from lupctl.core.training.nets.trunk import Trunk

# Length of the feature of every published OSNet, whatever its width.
FEATURES: Final = 512


class FcHead(nn.Module):
    """A linear layer, batch norm and ReLU, and a classifier of what they give.

    Args:
        num_features: D of the trunk.
        outputs: length of the retrieval feature.
        num_classes: C; 0 for no classifier.
    """

    def __init__(self, num_features: int, *, outputs: int, num_classes: int) -> None:
        super().__init__()
        # Running variances of published networks go down to 1e-15: the 1e-5 that is added to them shapes the feature.
        self.fc = nn.Sequential(nn.Linear(num_features, outputs), GroupedBatchNorm1d(outputs, eps=1e-5), nn.ReLU())
        self.classifier = nn.Linear(outputs, num_classes) if num_classes else None
        for layer in (self.fc[0], self.classifier):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to the retrieval feature (B, outputs), which is nowhere negative."""
        return self.fc(features)  # type: ignore[no-any-return]


class FcNetwork(Embedding):
    """Trunk, pooling and torchreid's head.

    Args:
        backbone, pool: from an image to a vector.
        outputs: length of the retrieval feature.
        num_classes: C; 0 for a network without a classifier.
    """

    def __init__(self, backbone: Trunk, pool: Pool, *, outputs: int, num_classes: int) -> None:
        super().__init__(backbone, pool)
        self.head = FcHead(self.num_features, outputs=outputs, num_classes=num_classes)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the retrieval feature (B, outputs), which the triplet loss sees too, and logits (B, C)."""
        assert self.head.classifier is not None, "a network without a classifier is not trained"
        features = self.embed(images, cameras)
        return features, self.head.classifier(features)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to the retrieval feature (B, outputs), not normalised."""
        return self.head(super().embed(images, cameras))  # type: ignore[no-any-return]

    def trunk_modules(self) -> list[nn.Module]:
        """The pre-trained part: all but the classifier."""
        return [self.backbone, self.head.fc]
