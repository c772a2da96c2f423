"""From a network's description, as checkpoints carry it, to the network."""

from dataclasses import asdict, dataclass
from typing import Any, assert_never

from lupctl.core.choices import Arch, HeadKind, Pooling
from lupctl.core.nets.networks import ContrastiveNetwork, Embedding, ReidNetwork
from lupctl.core.nets.resnet import Average, GeneralisedMean, ResNetTrunk


@dataclass(frozen=True)
class NetworkPlan:
    """Enough to build a network again.

    Args:
        arch, width, last_stride: of the trunk.
        pooling: from the last map to a vector.
        head: none (trunk only), projection (pre-training) or bnneck (re-id).
        outputs: dimensions of the projection, or classes of the classifier; 0 without a head.
    """

    arch: Arch
    width: int = 64
    last_stride: int = 2
    pooling: Pooling = "avg"
    head: HeadKind = "none"
    outputs: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as a checkpoint's header holds it."""
        return asdict(self)


def build_network(plan: NetworkPlan) -> Embedding:
    """The network a plan describes, freshly initialised from torch's global generator."""
    match plan.head:
        case "none":
            return Embedding(build_trunk(plan), build_pooling(plan.pooling))
        case "projection":
            return build_contrastive(plan)
        case "bnneck":
            return build_reid(plan)
        case _:
            assert_never(plan.head)


def build_contrastive(plan: NetworkPlan) -> ContrastiveNetwork:
    """A network for contrastive pre-training."""
    return ContrastiveNetwork(build_trunk(plan), build_pooling(plan.pooling), dim=plan.outputs)


def build_reid(plan: NetworkPlan) -> ReidNetwork:
    """A network for fine-tuning and retrieval."""
    return ReidNetwork(build_trunk(plan), build_pooling(plan.pooling), num_classes=plan.outputs)


def build_trunk(plan: NetworkPlan) -> ResNetTrunk:
    """The trunk alone."""
    return ResNetTrunk(plan.arch, width=plan.width, last_stride=plan.last_stride)


def build_pooling(pooling: Pooling) -> Average | GeneralisedMean:
    """The pooling layer of a name."""
    match pooling:
        case "avg":
            return Average()
        case "gem":
            return GeneralisedMean()
        case _:
            assert_never(pooling)
