"""A network for pre-training with labels: an encoder, and a classifier that no checkpoint keeps."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan, ProjectionHead
from lupctl.core.training.nets.build import build_contrastive, build_pooling, build_trunk
from lupctl.core.training.nets.networks import ContrastiveNetwork, Embedding


class Outputs(NamedTuple):
    """What a labelled network gives for B images.

    Args:
        query: (B, dim) of unit length; None if there is no projection.
        logits: (B, C); None if the network has no classifier.
        hidden: (B, H), what a classifier takes; None if nothing is classified.
    """

    query: Tensor | None
    logits: Tensor | None
    hidden: Tensor | None


class ClassBranch(nn.Module):
    """A classifier over the pooled features, after one smaller layer.

    Args:
        num_features: D of the trunk.
        hidden: size of the layer before the classifier; 0 for none.
        classes: C.
    """

    def __init__(self, num_features: int, *, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden) if hidden else None
        self.classifier: nn.Linear | None = nn.Linear(hidden or num_features, classes)
        if self.hidden is not None:
            nn.init.kaiming_normal_(self.hidden.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(self.hidden.bias)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, D) to logits (B, C) if there is a classifier, and what it takes.

        Logits are in float32: 16 bits are too few to tell many thousands of classes apart.
        """
        if self.hidden is not None:
            features = torch.relu(self.hidden(features))
        if self.classifier is None:
            return None, features
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features.to(self.classifier.weight.dtype)), features

    def give_classifier(self) -> nn.Linear:
        """Gives its classifier away, to be kept elsewhere."""
        given, self.classifier = self.classifier, None
        assert given is not None
        return given


class LabelledNetwork(nn.Module):
    """An encoder with a class branch beside its projection.

    Args:
        encoder: what is kept of it; without a projection if nothing is contrasted.
        classes: the class branch; None if nothing is classified.
    """

    def __init__(self, encoder: Embedding, classes: ClassBranch | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) to query and logits."""
        features = self.encoder.embed(images)
        query = self.encoder.project(features) if isinstance(self.encoder, ContrastiveNetwork) else None
        logits, hidden = (None, None) if self.classes is None else self.classes(features)
        return Outputs(query, logits, hidden)


def build_labelled(plan: NetworkPlan, *, hidden: int, classes: int) -> LabelledNetwork:
    """A network with PNL's published initialisation.

    Args:
        plan: of the encoder, with or without a projection.
        hidden: size of the layer before the classifier; 0 for none.
        classes: C; 0 for no class branch.
    """
    if isinstance(plan.head, ProjectionHead):
        encoder: Embedding = build_contrastive(plan)
        assert isinstance(encoder, ContrastiveNetwork)
        for layer in (encoder.head.hidden, encoder.head.out):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        encoder = Embedding(build_trunk(plan.trunk), build_pooling(plan.pooling))
    branch = ClassBranch(encoder.num_features, hidden=hidden, classes=classes) if classes else None
    return LabelledNetwork(encoder, branch)
