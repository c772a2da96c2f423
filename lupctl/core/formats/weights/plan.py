"""Description of a network in a checkpoint's header, complete enough to build it again.

Plans are read from files, so no field has a default (but one that older files lack) and unknown fields are rejected.
torch is not needed to read one; `lupctl.core.training.nets.build` makes the network.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from lupctl.core.choices import NeckFeature, Pooling, ResNetArch
from lupctl.core.formats.weights.fields import MOST, Count, Few, Plan
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan, describe_swin
from lupctl.core.formats.weights.vit_plan import VIT_SIZES, ViTPlan

Classes = Annotated[int, Field(ge=0, le=MOST)]
# Channels of the stem of every published ResNet.
STANDARD_WIDTH: Final = 64


class ResNetPlan(Plan):
    """A residual trunk.

    Args:
        arch: depth.
        width: channels of the stem.
        last_stride: stride of the last stage.
        ibn: whether the first three stages have IBN-a.
    """

    kind: Literal["resnet"]
    arch: ResNetArch
    width: Count
    last_stride: Literal[1, 2]
    ibn: bool


TrunkPlan = Annotated[ResNetPlan | ViTPlan | SwinPlan | OsnetPlan, Field(discriminator="kind")]


class NoHead(Plan):
    """The pooled trunk alone."""

    kind: Literal["none"]


class ProjectionHead(Plan):
    """Two linear layers for contrastive pre-training.

    Args:
        outputs: dimensions of the contrastive space.
    """

    kind: Literal["projection"]
    outputs: Count


class NeckHead(Plan):
    """BNNeck and a classifier.

    Args:
        classes: of the classifier; 0 for none.
        feature: of retrieval, after or before the neck; files from before there was a choice lack it.
    """

    kind: Literal["bnneck"]
    classes: Classes
    feature: NeckFeature = "after"


class MgnHead(Plan):
    """Three branches and eight heads, each of which has its own generalised-mean pooling.

    Args:
        classes: of each classifier; 0 for none.
        embedding: length of the features of one head.
        extra_bn: batch norm on each branch's map.
    """

    kind: Literal["mgn"]
    classes: Classes
    embedding: Count
    extra_bn: bool


class JpmHead(Plan):
    """TransReID's jigsaw patch module: a global feature and some of groups of patches, each with a neck of its own.

    Args:
        classes: of each classifier; 0 for none.
        feature: of retrieval, after or before the necks.
        shift: the first patches that move to the end are those with a number below it, counted from 1.
        groups: of the shuffle.
        parts: number of groups of patches.
    """

    kind: Literal["jpm"]
    classes: Classes
    feature: NeckFeature
    shift: Count
    groups: Few
    parts: Few


class PartsHead(Plan):
    """PASS's head: a neck for the class token and for each part token, and one classifier on what they give.

    Args:
        classes: of the classifier; 0 for none.
        feature: of retrieval, after or before the necks.
    """

    kind: Literal["parts"]
    classes: Classes
    feature: NeckFeature


class FcHead(Plan):
    """torchreid's head: a linear layer, batch norm and ReLU, and a classifier.

    Args:
        classes: of the classifier; 0 for none.
        outputs: length of the feature.
    """

    kind: Literal["fc"]
    classes: Classes
    outputs: Count


HeadPlan = Annotated[
    NoHead | ProjectionHead | NeckHead | MgnHead | JpmHead | PartsHead | FcHead, Field(discriminator="kind")
]


class NetworkPlan(Plan):
    """A network.

    Args:
        trunk: from an image to a map.
        pooling: from a map to a vector; the heads of an mgn use gem, those of a jpm and of parts their own tokens.
        head: what follows.
    """

    trunk: TrunkPlan
    pooling: Pooling
    head: HeadPlan

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        is_vit, parts = isinstance(self.trunk, ViTPlan), self.trunk.parts if isinstance(self.trunk, ViTPlan) else 0
        if (self.pooling in ("token", "parts") and not is_vit) or (self.pooling == "parts" and not parts):
            raise ValueError(f"pooling {self.pooling} of a trunk that has no such tokens")
        if isinstance(self.head, MgnHead) and not isinstance(self.trunk, ResNetPlan):
            raise ValueError("an mgn has a residual trunk")
        if isinstance(self.head, JpmHead) and (not isinstance(self.trunk, ViTPlan) or parts or self.trunk.depth < 2):
            raise ValueError("a jpm has a vision transformer of two or more blocks, without part tokens")
        if isinstance(self.head, PartsHead) and not parts:
            raise ValueError("a head of parts has a vision transformer with part tokens")
        return self


def describe_trunk(plan: TrunkPlan) -> str:
    """A short description of a trunk.

    >>> describe_trunk(ResNetPlan(kind="resnet", arch="r50", width=64, last_stride=1, ibn=False))
    'r50'
    >>> from lupctl.core.formats.weights.trunk_plan import plan_trunk
    >>> from lupctl.core.recipes.sections import Net, Pixels
    >>> from lupctl.core.recipes.vit_sections import VitNet
    >>> describe_trunk(plan_trunk(Net(arch="vit-b"), Pixels(), vit=VitNet(stride=12)))
    'vit-b stride 12'
    """
    if isinstance(plan, SwinPlan):
        return describe_swin(plan)
    if isinstance(plan, OsnetPlan):
        return plan.arch
    if isinstance(plan, ResNetPlan):
        return plan.arch if plan.width == STANDARD_WIDTH else f"{plan.arch} width {plan.width}"
    parts = [plan.arch or f"vit {plan.dim}/{plan.depth}/{plan.heads}"]
    if plan.arch is not None and plan.depth != VIT_SIZES[plan.arch][1]:
        parts.append(f"depth {plan.depth}")
    if plan.stem == "ics":
        parts.append("ics")
    if plan.stride != plan.patch:
        parts.append(f"stride {plan.stride}")
    if plan.parts:
        parts.append(f"{plan.parts} part tokens")
    if plan.side_rows:
        parts.append(f"{plan.side_rows} cameras" if plan.views == 1 else f"{plan.side_rows} rows of cameras and views")
    return " ".join(parts)
