"""From a network's description, as checkpoints carry it, to the network."""

from dataclasses import asdict, dataclass
from typing import Any, assert_never

from lupctl.core.choices import Arch, HeadKind, Pooling
from lupctl.core.training.nets.mgn import MgnNetwork
from lupctl.core.training.nets.networks import ContrastiveNetwork, Embedding, ReidNetwork
from lupctl.core.training.nets.resnet.trunk import Average, GeneralisedMean, ResNetTrunk

Network = Embedding | MgnNetwork


@dataclass(frozen=True)
class NetworkPlan:
    """Enough to build a network again.

    Args:
        arch, width, last_stride: of the trunk.
        pooling: from the last map to a vector.
        head: none (trunk only), projection (pre-training), bnneck or mgn (re-id).
        outputs: dimensions of the projection, or classes of the classifier; 0 without a head.
        embedding: features of one of the heads of mgn, which always pools by its own generalised means.
        extra_bn: mgn's batch norm on each branch's map.
        ibn: whether the trunk has IBN-a.
    """

    arch: Arch
    width: int = 64
    last_stride: int = 2
    pooling: Pooling = "avg"
    head: HeadKind = "none"
    outputs: int = 0
    embedding: int = 0
    extra_bn: bool = False
    ibn: bool = False

    def to_json(self) -> dict[str, Any]:
        """The plan as a checkpoint's header holds it."""
        return asdict(self)


def build_network(plan: NetworkPlan) -> Network:
    """The network a plan describes, freshly initialised from torch's global generator."""
    match plan.head:
        case "none":
            return Embedding(build_trunk(plan), build_pooling(plan.pooling))
        case "projection":
            return build_contrastive(plan)
        case "bnneck":
            return build_reid(plan)
        case "mgn":
            return build_mgn(plan)
        case _:
            assert_never(plan.head)


def build_contrastive(plan: NetworkPlan) -> ContrastiveNetwork:
    """A network for contrastive pre-training."""
    return ContrastiveNetwork(build_trunk(plan), build_pooling(plan.pooling), dim=plan.outputs)


def build_reid(plan: NetworkPlan) -> ReidNetwork:
    """A network for fine-tuning and retrieval."""
    return ReidNetwork(build_trunk(plan), build_pooling(plan.pooling), num_classes=plan.outputs)


def build_mgn(plan: NetworkPlan) -> MgnNetwork:
    """A multiple granularity network."""
    fine = ResNetTrunk(plan.arch, width=plan.width, last_stride=1, ibn=plan.ibn)
    return MgnNetwork(
        build_trunk(plan), fine, embedding=plan.embedding, num_classes=plan.outputs, extra_bn=plan.extra_bn
    )


def build_trunk(plan: NetworkPlan) -> ResNetTrunk:
    """The trunk alone."""
    return ResNetTrunk(plan.arch, width=plan.width, last_stride=plan.last_stride, ibn=plan.ibn)


def build_pooling(pooling: Pooling) -> Average | GeneralisedMean:
    """The pooling layer of a name."""
    match pooling:
        case "avg":
            return Average()
        case "gem":
            return GeneralisedMean()
        case _:
            assert_never(pooling)
