"""Description of a network in a checkpoint's header, complete enough to build it again.

Plans are read from files, so no field has a default and unknown fields are rejected. torch is not needed to read
one; `lupctl.core.training.nets.build` makes the network.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from lupctl.core.choices import Pooling, ResNetArch

# Far more than any network has; a file with a larger number is damaged.
MOST: Final = 2**24
# Channels of the stem of every published ResNet.
STANDARD_WIDTH: Final = 64

Count = Annotated[int, Field(ge=1, le=MOST)]


class Plan(BaseModel):
    """Part of a description: frozen, with neither unknown nor missing fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return self.model_dump(mode="json")


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


# Another family joins as Annotated[ResNetPlan | ViTPlan, Field(discriminator="kind")].
TrunkPlan = ResNetPlan


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
        classes: of the classifier.
    """

    kind: Literal["bnneck"]
    classes: Count


class MgnHead(Plan):
    """Three branches and eight heads, each of which has its own generalised-mean pooling.

    Args:
        classes: of each classifier; 0 for no classifiers.
        embedding: length of the features of one head.
        extra_bn: batch norm on each branch's map.
    """

    kind: Literal["mgn"]
    classes: Annotated[int, Field(ge=0, le=MOST)]
    embedding: Count
    extra_bn: bool


HeadPlan = Annotated[NoHead | ProjectionHead | NeckHead | MgnHead, Field(discriminator="kind")]


class NetworkPlan(Plan):
    """A network.

    Args:
        trunk: from an image to a map.
        pooling: from a map to a vector; the heads of an mgn use gem.
        head: what follows.
    """

    trunk: TrunkPlan
    pooling: Pooling
    head: HeadPlan


def describe_trunk(plan: TrunkPlan) -> str:
    """A short description of a trunk.

    >>> describe_trunk(ResNetPlan(kind="resnet", arch="r50", width=64, last_stride=1, ibn=False))
    'r50'
    """
    return plan.arch if plan.width == STANDARD_WIDTH else f"{plan.arch} width {plan.width}"
