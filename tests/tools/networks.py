"""Plans of small networks and headers of their checkpoints, as several tests need them."""

from typing import Any, Literal

from lupctl.core.choices import NeckFeature, Pooling, ResNetArch, ViTArch
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import (
    HeadPlan,
    JpmHead,
    MgnHead,
    NeckHead,
    NetworkPlan,
    NoHead,
    ProjectionHead,
    ResNetPlan,
)
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.sections import Net, Pixels
from lupctl.core.recipes.vit_sections import VitNet


def plan_network(
    head: HeadPlan,
    arch: ResNetArch = "r18",
    *,
    width: int = 4,
    last_stride: Literal[1, 2] = 2,
    pooling: Pooling = "avg",
    ibn: bool = False,
) -> NetworkPlan:
    """A network with a residual trunk, narrow unless the width says otherwise."""
    trunk = ResNetPlan(kind="resnet", arch=arch, width=width, last_stride=last_stride, ibn=ibn)
    return NetworkPlan(trunk=trunk, pooling=pooling, head=head)


def plan_vit(arch: ViTArch, *, height: int, width: int, stride: int = 16) -> ViTPlan:
    """A plain trunk of a named size, as TransReID's baseline; other kinds are copies of it with changes."""
    plan = plan_trunk(Net(arch=arch), Pixels(height=height, width=width), vit=VitNet(stride=stride))
    assert isinstance(plan, ViTPlan)
    return plan


def tiny_vit(**changes: Any) -> ViTPlan:
    """A vision transformer of two narrow blocks on a grid of 4 x 2 patches of 16 pixels, with changes."""
    small = {"dim": 16, "depth": 2, "heads": 2, "hidden": 32, "rows": 4, "columns": 2}
    plain = plan_vit("vit-t", height=64, width=32)
    return ViTPlan.model_validate({**plain.model_dump(), **small, **changes})


def jpm_head(classes: int, *, feature: NeckFeature = "before", shift: int = 5, groups: int = 2) -> JpmHead:
    """TransReID's jigsaw patch module, with four parts."""
    return JpmHead(kind="jpm", classes=classes, feature=feature, shift=shift, groups=groups, parts=4)


def no_head() -> NoHead:
    """The pooled trunk alone."""
    return NoHead(kind="none")


def projection(outputs: int) -> ProjectionHead:
    """For contrastive pre-training."""
    return ProjectionHead(kind="projection", outputs=outputs)


def neck(classes: int) -> NeckHead:
    """BNNeck."""
    return NeckHead(kind="bnneck", classes=classes)


def mgn_heads(classes: int, *, embedding: int = 5, extra_bn: bool = True) -> MgnHead:
    """The eight heads of an mgn."""
    return MgnHead(kind="mgn", classes=classes, embedding=embedding, extra_bn=extra_bn)


def make_header(network: NetworkPlan | None = None, **more: Any) -> CheckpointHeader:
    """A header of a fine-tuning run on nothing, with fields of one's own."""
    fields: dict[str, Any] = {
        "stage": "finetune", "command": ("lupctl", "finetune", "tiny"), "recipe": None,
        "network": network or plan_network(no_head()), "preprocessing": describe_pixels(Pixels()), "classes": (),
        "parents": {}, "data": (),
    }  # fmt: skip
    return CheckpointHeader(**{**fields, **more})
