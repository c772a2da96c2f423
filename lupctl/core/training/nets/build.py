"""Builds networks from their plans, as checkpoints contain them."""

from typing import assert_never

from lupctl.core.choices import Pooling
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import (
    FcHead,
    JpmHead,
    MgnHead,
    NeckHead,
    NetworkPlan,
    NoHead,
    PartsHead,
    ProjectionHead,
    ResNetPlan,
    TrunkPlan,
)
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.mgn import MgnNetwork
from lupctl.core.training.nets.networks import ContrastiveNetwork, Embedding, ReidNetwork
from lupctl.core.training.nets.osnet.network import FcNetwork
from lupctl.core.training.nets.osnet.trunk import OsnetTrunk
from lupctl.core.training.nets.parts import PartsNetwork
from lupctl.core.training.nets.pooling import Average, ClassAndParts, ClassToken, GeneralisedMean, Pool
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from lupctl.core.training.nets.swin.trunk import SwinTrunk
from lupctl.core.training.nets.trunk import Trunk
from lupctl.core.training.nets.vit.trunk import ViTTrunk

# Those that fine-tuning makes, with classifiers; and all of them.
Classifying = ReidNetwork | MgnNetwork | JpmNetwork | PartsNetwork | FcNetwork
Network = Embedding | Classifying


def build_network(plan: NetworkPlan) -> Network:
    """The network a plan describes, freshly initialised from torch's global generator."""
    match plan.head:
        case NoHead():
            return Embedding(build_trunk(plan.trunk), build_pooling(plan.pooling))
        case ProjectionHead():
            return build_contrastive(plan)
        case NeckHead():
            return build_reid(plan)
        case MgnHead():
            return build_mgn(plan)
        case JpmHead():
            return build_jpm(plan)
        case PartsHead():
            return build_parts(plan)
        case FcHead():
            return build_fc(plan)
        case _:
            assert_never(plan.head)


def build_contrastive(plan: NetworkPlan) -> ContrastiveNetwork:
    """A network for contrastive pre-training."""
    assert isinstance(plan.head, ProjectionHead)
    return ContrastiveNetwork(build_trunk(plan.trunk), build_pooling(plan.pooling), dim=plan.head.outputs)


def build_reid(plan: NetworkPlan) -> ReidNetwork:
    """A network for fine-tuning and retrieval."""
    assert isinstance(plan.head, NeckHead)
    trunk, pool = build_trunk(plan.trunk), build_pooling(plan.pooling)
    return ReidNetwork(trunk, pool, num_classes=plan.head.classes, feature=plan.head.feature)


def build_mgn(plan: NetworkPlan) -> MgnNetwork:
    """A multiple granularity network; it takes its trunk apart, which must be a residual one."""
    assert isinstance(plan.head, MgnHead)
    assert isinstance(plan.trunk, ResNetPlan)
    # First the branches that start as copies: the random weights of a seed depend on this order.
    fine = build_resnet(plan.trunk.model_copy(update={"last_stride": 1}))
    trunk = build_resnet(plan.trunk)
    return MgnNetwork(
        trunk, fine, embedding=plan.head.embedding, num_classes=plan.head.classes, extra_bn=plan.head.extra_bn
    )


def build_jpm(plan: NetworkPlan) -> JpmNetwork:
    """A vision transformer with the jigsaw patch module."""
    assert isinstance(plan.head, JpmHead)
    assert isinstance(plan.trunk, ViTPlan)
    return JpmNetwork(plan.trunk, plan.head)


def build_parts(plan: NetworkPlan) -> PartsNetwork:
    """A vision transformer with part tokens and a neck for each."""
    assert isinstance(plan.head, PartsHead)
    assert isinstance(plan.trunk, ViTPlan)
    count = plan.trunk.parts
    return PartsNetwork(ViTTrunk(plan.trunk), num_parts=count, num_classes=plan.head.classes, feature=plan.head.feature)


def build_fc(plan: NetworkPlan) -> FcNetwork:
    """A network with torchreid's head."""
    assert isinstance(plan.head, FcHead)
    trunk, pool = build_trunk(plan.trunk), build_pooling(plan.pooling)
    return FcNetwork(trunk, pool, outputs=plan.head.outputs, num_classes=plan.head.classes)


def build_trunk(plan: TrunkPlan) -> Trunk:
    """The trunk alone."""
    match plan:
        case ResNetPlan():
            return build_resnet(plan)
        case ViTPlan():
            return ViTTrunk(plan)
        case SwinPlan():
            return SwinTrunk(plan)
        case OsnetPlan():
            return OsnetTrunk(plan.arch)
        case _:
            assert_never(plan)


def build_resnet(plan: ResNetPlan) -> ResNetTrunk:
    """A residual trunk."""
    return ResNetTrunk(plan.arch, width=plan.width, last_stride=plan.last_stride, ibn=plan.ibn)


def build_pooling(pooling: Pooling) -> Pool:
    """The pooling layer with this name."""
    match pooling:
        case "avg":
            return Average()
        case "gem":
            return GeneralisedMean()
        case "token":
            return ClassToken()
        case "parts":
            return ClassAndParts()
        case _:
            assert_never(pooling)
