"""The network of self-distillation: a pooled trunk, and DINO's head (Caron et al. 2021, arXiv 2104.14294)."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan, NoHead
from lupctl.core.training.nets.build import build_pooling, build_trunk
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.vit.blocks import set_drop_keys

# Standard deviation of the head's fresh linear layers, as in the published code.
STD: Final = 0.02


class Outputs(NamedTuple):
    """What a network gives for N crops.

    Args:
        features: (N, D), pooled.
        logits: (N, K), cosines.
        maps: last maps of some crops, from a network that is asked for them.
    """

    features: Tensor
    logits: Tensor
    maps: Tensor | None = None


class UnitLinear(nn.Module):
    """A linear layer without bias whose rows are used at unit length: weight normalisation with a gain of 1.

    Args:
        num_features: D.
        outputs: K.
    """

    def __init__(self, num_features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, num_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's own linear layer

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) to (N, K)."""
        # One kernel each way; composed of torch's own functions, K x D numbers are read and written a dozen times.
        unit = torch._weight_norm(self.weight, torch.ones_like(self.weight[:, :1]), 0)
        return F.linear(features, unit)


class DinoHead(nn.Module):
    """Three linear layers with the exact GELU between them, unit length, and a layer of unit rows; DINO's keys.

    Args:
        num_features: D of the trunk.
        hidden, bottleneck: widths of the first two layers and of the third.
        outputs: K.
    """

    def __init__(self, num_features: int, *, hidden: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_layer = UnitLinear(bottleneck, outputs)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=STD)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) to (N, K)."""
        return self.last_layer(F.normalize(self.mlp(features), dim=1))  # type: ignore[no-any-return]


class DinoNetwork(nn.Module):
    """A trunk that sees crops of several sizes, and one head over all of them.

    Args:
        embedding: trunk and pooling.
        head: takes what they give.
    """

    def __init__(self, embedding: Embedding, head: DinoHead) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = head
        self.drop_keys: Tensor | None = None

    def forward(self, *groups: Tensor) -> Outputs:
        """Each group through the trunk on its own, with its own batch statistics; then all of them through the head.

        Args:
            groups: (n, 3, H, W) each, of crops of one size: all images' first crops, then all images' second ones.

        Returns:
            for all crops in this order. With stochastic depth, `drop_keys` are theirs.
        """
        features = []
        for number, group in enumerate(groups):
            self.key_depth(number, groups)
            features.append(self.embedding.embed(group))
        together = torch.cat(features)
        return Outputs(together, self.head(together))

    def key_depth(self, number: int, groups: Sequence[Tensor]) -> None:
        """Lets the stochastic depth of one of several groups draw from that group's share of `drop_keys`, if any."""
        if self.drop_keys is not None:
            set_drop_keys(self.embedding, torch.split(self.drop_keys, [len(group) for group in groups])[number])


def head_parameters(num_features: int, *, hidden: int, bottleneck: int, outputs: int) -> int:
    """Number of parameters of a `DinoHead`."""
    layers = (num_features + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * bottleneck
    return layers + bottleneck * outputs


def build_dino(plan: NetworkPlan, *, hidden: int, bottleneck: int, outputs: int) -> DinoNetwork:
    """A network with fresh weights.

    Args:
        plan: of the pooled trunk.
        hidden, bottleneck, outputs: of the head.
    """
    assert isinstance(plan.head, NoHead)
    embedding = Embedding(build_trunk(plan.trunk), build_pooling(plan.pooling))
    head = DinoHead(embedding.num_features, hidden=hidden, bottleneck=bottleneck, outputs=outputs)
    return DinoNetwork(embedding, head)
