"""SOLIDER's network in pre-training: a Swin with a weight for each crop, and a head that names the parts of a map."""

from typing import Final

import torch
from torch import Tensor

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.dino import DinoHead, DinoNetwork, Outputs, build_dino
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.swin.trunk import SwinTrunk

# Beside the parts of a body there is one more class, what is around it.
AROUND: Final = 1


class SemanticNetwork(DinoNetwork):
    """DINO's network on a Swin with a semantic controller, which gets a weight for each crop.

    Args:
        embedding: a Swin with a controller, and its pooling.
        head: takes what they give.

    Attributes:
        part_head: from a token of a last map to the part that it shows; of the network that is trained alone.
    """

    part_head: DinoHead | None

    def __init__(self, embedding: Embedding, head: DinoHead) -> None:
        super().__init__(embedding, head)
        self.part_head = None

    def forward(self, *inputs: Tensor) -> Outputs:
        """As of `DinoNetwork`, with more crops beside the first group, which need the trunk alone.

        Args:
            inputs: the semantic weights of all crops (M + N) in [0, 1]; then (M, 3, H, W), the crops beside the first
                group, of its size; then the groups, of N crops. With stochastic depth, `drop_keys` are in this order.

        Returns:
            for the N crops of the groups; and the last maps of the first pass, (M + n, D, h, w).
        """
        weights, beside, *groups = inputs
        groups[0] = torch.cat([beside, groups[0]])
        shares = torch.split(weights, [len(group) for group in groups])
        maps = []
        for number, (group, share) in enumerate(zip(groups, shares, strict=True)):
            self.key_depth(number, groups)
            maps.append(self.embedding.backbone(group, semantic_weight=share))
        features = torch.cat([self.embedding.pool(one) for one in maps])[len(beside) :]
        return Outputs(features, self.head(features), maps[0].map)


def build_semantic(plan: NetworkPlan, *, hidden: int, bottleneck: int, outputs: int) -> SemanticNetwork:
    """A network with fresh weights and without a head for parts.

    Args:
        plan: of the pooled trunk, a Swin with a controller.
        hidden, bottleneck, outputs: of the head.
    """
    network = build_dino(plan, hidden=hidden, bottleneck=bottleneck, outputs=outputs)
    assert isinstance(network.embedding.backbone, SwinTrunk)
    assert network.embedding.backbone.plan.semantic_weight is not None
    return SemanticNetwork(network.embedding, network.head)


def build_part_head(num_features: int, *, parts: int, hidden: int, bottleneck: int) -> DinoHead:
    """A fresh head for the parts of a body and what is around it, built like DINO's.

    Args:
        num_features: D of a token.
        parts: R; the head has R + 1 outputs, of which the first is what is around.
        hidden, bottleneck: widths.
    """
    return DinoHead(num_features, hidden=hidden, bottleneck=bottleneck, outputs=parts + AROUND)
