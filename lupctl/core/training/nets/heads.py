"""The heads that follow a pooled trunk."""

from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm1d

# Prefixes of those keys of a network with a neck that only make sense for its own training set.
CLASSIFIERS: Final = ("head.classifier.",)


class Projection(nn.Module):
    """Two linear layers to the contrastive space, without batch norm (Chen et al. 2020, arXiv 2003.04297).

    Args:
        num_features: D of the trunk.
        dim: of the contrastive space.
    """

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, num_features)
        self.out = nn.Linear(num_features, dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, dim), not normalised."""
        return self.out(torch.relu(self.hidden(features)))  # type: ignore[no-any-return]


class BatchNormNeck(nn.Module):
    """BNNeck of the strong baseline (Luo et al. 2019, arXiv 1903.07071).

    The triplet loss sees the feature before the neck, the classifier and the evaluation the one after it.

    Args:
        num_features: D.
        num_classes: persons of the training set; 0 for no classifier.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.neck = build_neck(num_features)
        self.classifier = build_classifier(num_features, num_classes) if num_classes else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to the feature after the neck, (B, D)."""
        return self.neck(features)  # type: ignore[no-any-return]


def build_neck(num_features: int) -> GroupedBatchNorm1d:
    """A batch norm whose shift stays 0."""
    neck = GroupedBatchNorm1d(num_features)
    # A shift would move the classes' hyperplanes off the origin; cosine retrieval needs them through it.
    neck.bias.requires_grad_(False)
    return neck


def build_classifier(num_features: int, num_classes: int) -> nn.Linear:
    """A linear classifier without bias, freshly drawn."""
    classifier = nn.Linear(num_features, num_classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier
