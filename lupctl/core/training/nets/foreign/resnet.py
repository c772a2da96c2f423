"""Published residual networks: MGN as LUPerson's projects publish it, and trunks with torchvision's names."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from lupctl.core.choices import ResNetArch
from lupctl.core.formats.weights.plan import MgnHead, NetworkPlan, NoHead, ResNetPlan
from lupctl.core.training.nets.foreign.fitting import Recognised, count_blocks, count_rows, fit
from lupctl.core.training.nets.mgn import HEADS
from lupctl.core.training.nets.resnet.trunk import DEPTHS

PIXEL_KEYS = ("pixel_mean", "pixel_std")
TRUNK_LAYERS = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
# Longest first. Those of the requested encoder of a training checkpoint, which has two, are tried before them.
TRUNK_PREFIXES = ("module.backbone.", "backbone.", "module.", "")
# What pre-training keeps besides the trunk.
TRAINING_PARTS = re.compile(
    r"(module\.)?(queue(_id|_ptr)?|prototypes|((encoder_[qk]|backbone)\.)?(fc|embed_fc|classifier|fc1|fc2)\..*)"
)
OTHER_ENCODER = {"q": re.compile(r"(module\.)?encoder_k\..*"), "k": re.compile(r"(module\.)?encoder_q\..*")}
CLASSIFIERS = tuple(f"{head}_head.classifier.weight" for head in HEADS)


def recognise_mgn(state: Mapping[str, Tensor]) -> Recognised:
    """An MGN in fast-reid's keys, which are also ours; classifiers count if all eight are there and agree."""
    pixels = {key: state[key] for key in PIXEL_KEYS if key in state}
    classifiers = {key: state[key] for key in CLASSIFIERS if key in state}
    agree = len(classifiers) == len(HEADS) and len({value.shape for value in classifiers.values()}) == 1
    own = {key: value for key, value in state.items() if key not in pixels and (agree or key not in classifiers)}
    blocks = (
        count_blocks(own, "backbone.4."),
        count_blocks(own, "backbone.5."),
        count_blocks(own, "b1.0.") + 1,
        count_blocks(own, "b1.1."),
    )
    reduce = own.get("b1_head.bottleneck.0.weight")
    trunk = ResNetPlan(
        kind="resnet",
        arch=nearest_arch(blocks, is_deep="backbone.4.0.conv3.weight" in own),
        width=count_rows(own["backbone.0.weight"]),
        last_stride=1,
        ibn=False,
    )
    head = MgnHead(
        kind="mgn",
        classes=count_rows(classifiers[CLASSIFIERS[0]]) if agree else 0,
        embedding=256 if reduce is None else count_rows(reduce),
        extra_bn=any(key.startswith("heads_extra_bn_") for key in own),
    )
    plan = NetworkPlan(trunk=trunk, pooling="gem", head=head)
    found = fit(plan, own)
    mean, std = (_triple(pixels.get(key)) for key in PIXEL_KEYS)
    lacking = [key for key in (*CLASSIFIERS, *PIXEL_KEYS) if key not in state]
    return replace(
        found,
        matched=found.matched + len(pixels),
        ignored=() if agree else tuple(classifiers),
        missing=(*found.missing, *lacking),
        mean=mean,
        std=std,
    )


def recognise_trunk(state: Mapping[str, Tensor], prefix: str, *, encoder: Literal["q", "k"] = "q") -> Recognised:
    """A ResNet trunk in torchvision's keys under a prefix; what pre-training keeps besides it is left out."""
    own, ignored, strange = {}, list[str](), dict[str, Tensor]()
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.startswith(TRUNK_LAYERS):
            own[f"backbone.{name}"] = value
        elif TRAINING_PARTS.fullmatch(key) or OTHER_ENCODER[encoder].fullmatch(key):
            ignored.append(key)
        else:
            strange[key] = value
    blocks = tuple(count_blocks(own, f"backbone.layer{stage}.") for stage in range(1, 5))
    trunk = ResNetPlan(
        kind="resnet",
        arch=nearest_arch(blocks, is_deep="backbone.layer1.0.conv3.weight" in own),
        width=count_rows(own["backbone.conv1.weight"]),
        last_stride=2,
        ibn=False,
    )
    plan = NetworkPlan(trunk=trunk, pooling="avg", head=NoHead(kind="none"))
    return replace(fit(plan, {**own, **strange}), ignored=tuple(ignored), prefix=prefix)


def nearest_arch(blocks: tuple[int, ...], *, is_deep: bool) -> ResNetArch:
    """The depth with these numbers of blocks, or the one that comes closest."""
    depths: list[ResNetArch] = [arch for arch in DEPTHS if (arch != "r18") == is_deep]
    return min(depths, key=lambda arch: sum(abs(a - b) for a, b in zip(DEPTHS[arch].blocks, blocks, strict=True)))


def _triple(values: Tensor | None) -> tuple[float, float, float] | None:
    """A file's pixel constants, which are on a scale of 255, as numbers in [0, 1]."""
    if values is None or values.numel() != 3:
        return None
    first, second, third = (values.double().flatten() / 255).tolist()
    return first, second, third
