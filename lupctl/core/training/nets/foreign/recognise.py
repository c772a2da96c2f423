"""Published networks, recognised by the names and shapes of their tensors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import MgnHead, NetworkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.system.examples import name_some
from lupctl.core.training.nets.foreign.fitting import Recognised
from lupctl.core.training.nets.foreign.grids import AS_PUBLISHED, Asked
from lupctl.core.training.nets.foreign.osnet import find_osnet, recognise_osnet
from lupctl.core.training.nets.foreign.resnet import TRUNK_PREFIXES, recognise_mgn, recognise_trunk
from lupctl.core.training.nets.foreign.swin import find_swin, recognise_swin
from lupctl.core.training.nets.foreign.vit import find_prefix, recognise_vit
from lupctl.core.training.nets.vit.imagenet import CLASSIFIER, has_torchvision_names, rename_torchvision

# A tensor that every network of a family has, and the one by which it is known under any prefix.
FIRST_KEYS = {
    "a ResNet's": ("layer1.0.conv1.weight", "conv1.weight"),
    "a vision transformer's": ("blocks.0.attn.qkv.weight", "cls_token"),
    "a Swin transformer's": ("stages.0.blocks.0.attn.w_msa.qkv.weight", "norm3.weight"),
    "an OSNet's": ("conv2.0.gate.fc1.weight", "conv1.conv.weight"),
}


def recognise(
    state: Mapping[str, Tensor],
    *,
    origin: str,
    encoder: Encoder | None = None,
    asked: Asked = AS_PUBLISHED,
    inside: tuple[str, ...] = (),
) -> Recognised:
    """The network that tensors belong to.

    Args:
        state: by the keys of the file.
        origin: the file, for the error.
        encoder: the one to take from a training checkpoint of MoCo or PNL: q or student, the trained one, from which
            published backbones are made, or k or teacher, its average; None for q.
        asked: size and stride of a vision transformer, where the user says them.
        inside: names of the dictionaries that the state was in.

    Raises:
        FormatError: they do not belong to a known network, or not to one of that size and stride.
    """
    if has_torchvision_names(state):
        found = recognise_vit(rename_torchvision(state), "", origin=origin, asked=asked, inside=inside)
        return replace(found, ignored=(*found.ignored, *(key for key in state if key.startswith(CLASSIFIER))))
    prefix = find_prefix(state)
    if prefix is not None:
        return recognise_vit(state, prefix, origin=origin, asked=asked, inside=inside)
    swin = find_swin(state)
    if swin is not None:
        refuse_asked(asked, "a Swin transformer, which takes images of any size", origin)
        return recognise_swin(state, *swin, origin=origin)
    osnet = find_osnet(state)
    if osnet is not None:
        refuse_asked(asked, "an OSNet, which takes images of any size", origin)
        return recognise_osnet(state, osnet)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    branch: Literal["q", "k"] = "k" if encoder in ("k", "teacher") else "q"
    trunks = (f"module.encoder_{branch}.", f"encoder_{branch}.", *TRUNK_PREFIXES)
    if "backbone.0.weight" in plain and any(key.startswith("b1.") for key in plain):
        found = recognise_mgn(plain)
    else:
        prefix = next((one for one in trunks if f"{one}conv1.weight" in state), None)
        if prefix is None:
            raise unknown(state, origin)
        found = recognise_trunk(state, prefix, encoder=branch)
    refuse_asked(asked, "a residual network", origin)
    return found


def refuse_asked(asked: Asked, what: str, origin: str) -> None:
    """Fails if a size or a stride was said of a network that has no positions.

    Raises:
        FormatError: one was.
    """
    if asked.words:
        raise FormatError(
            f"{origin}: {what}; --size and --stride are for vision transformers", hint=f"leave out {asked.words}"
        )


def unknown(state: Mapping[str, Tensor], origin: str) -> FormatError:
    """The error for tensors of an unknown network; for a trunk under an unknown prefix, it names the prefix."""
    for family, (first, mark) in FIRST_KEYS.items():
        prefix = next((key.removesuffix(first) for key in state if key.endswith(f".{first}")), "")
        if prefix and f"{prefix}{mark}" in state:
            return FormatError(
                f"{origin}: {family} tensors under the prefix {prefix!r}, which is not one of the published prefixes",
                hint="save the state again without it, or with module., backbone., base. or encoder_q. in its place",
            )
    return FormatError(
        f"{origin}: {len(state)} tensors of an unknown network ({name_some(state)})",
        hint="known networks: MGN as LUPerson's projects publish it, ResNet trunks with torchvision's names, and "
        "vision transformers with timm's names or torchvision's: TransReID and its descendants, DINO, DeiT, ImageNet; "
        "Swins of SOLIDER and of ImageNet; OSNets of torchreid",
    )


def turn_to_rgb(found: Recognised) -> Recognised:
    """The same network for RGB after training on BGR: channels of stem and constants in reverse order."""
    stem = stem_key(found.plan)
    tensors = {**found.tensors, stem: found.tensors[stem].flip(1)}
    return replace(found, tensors=tensors, mean=_turn(found.mean), std=_turn(found.std))


def stem_key(plan: NetworkPlan) -> str:
    """The key of the convolution that takes the pixels."""
    if isinstance(plan.trunk, SwinPlan):
        return "backbone.patch_embed.projection.weight"
    if isinstance(plan.trunk, OsnetPlan):
        return "backbone.conv1.conv.weight"
    if isinstance(plan.trunk, ViTPlan):
        return f"backbone.patch_embed.{'conv.0' if plan.trunk.stem == 'ics' else 'proj'}.weight"
    return "backbone.0.weight" if isinstance(plan.head, MgnHead) else "backbone.conv1.weight"


def _turn(values: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[2], values[1], values[0])
