"""Published networks, recognised by the names and shapes of their tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lupctl.core.choices import ResNetArch
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.fields import MOST
from lupctl.core.formats.weights.plan import MgnHead, NetworkPlan, NoHead, ResNetPlan
from lupctl.core.system.examples import name_some
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.mgn import HEADS
from lupctl.core.training.nets.resnet.trunk import DEPTHS

Encoder = Literal["q", "k"]

COUNTER = "num_batches_tracked"
PIXEL_KEYS = ("pixel_mean", "pixel_std")
FIRST_OF_A_STAGE = "layer1.0.conv1.weight"
TRUNK_LAYERS = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
# Longest first. Those of the requested encoder of a training checkpoint, which has two, are tried before them.
TRUNK_PREFIXES = ("module.backbone.", "backbone.", "module.", "")
# What pre-training keeps besides the trunk.
TRAINING_PARTS = re.compile(
    r"(module\.)?(queue(_id|_ptr)?|prototypes|((encoder_[qk]|backbone)\.)?(fc|embed_fc|classifier|fc1|fc2)\..*)"
)
OTHER_ENCODER = {"q": re.compile(r"(module\.)?encoder_k\..*"), "k": re.compile(r"(module\.)?encoder_q\..*")}
CLASSIFIERS = tuple(f"{head}_head.classifier.weight" for head in HEADS)


@dataclass(frozen=True)
class Difference:
    """One tensor that does not fit: its key, its shape in the file and in the network, None if it is absent."""

    key: str
    found: tuple[int, ...] | None
    expected: tuple[int, ...] | None


@dataclass(frozen=True)
class Recognised:
    """A published network, in our keys.

    Args:
        plan: the network.
        tensors: by the keys of `build_network(plan)`, all of them.
        matched: number of tensors from the file, including pixel constants.
        ignored: optional keys of the file that were left out.
        missing: optional keys that the file lacks.
        mean, std: pixel constants of RGB in [0, 1], if the file has them.
        differences: what does not fit; the file is refused when there is any.
        prefix: of the keys that were taken.
    """

    plan: NetworkPlan
    tensors: dict[str, Tensor]
    matched: int
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    differences: tuple[Difference, ...] = ()
    prefix: str = ""


def recognise(state: Mapping[str, Tensor], *, origin: str, encoder: Encoder = "q") -> Recognised:
    """The network that tensors belong to.

    Args:
        state: by the keys of the file.
        origin: the file, for the error.
        encoder: the one to take from a training checkpoint: q, the trained one, from which published backbones are
            made, or k, its average.

    Raises:
        FormatError: they do not belong to a known network.
    """
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    if "backbone.0.weight" in plain and any(key.startswith("b1.") for key in plain):
        return recognise_mgn(plain)
    for prefix in (f"module.encoder_{encoder}.", f"encoder_{encoder}.", *TRUNK_PREFIXES):
        if f"{prefix}conv1.weight" in state:
            return recognise_trunk(state, prefix, encoder=encoder)
    raise unknown(state, origin)


def unknown(state: Mapping[str, Tensor], origin: str) -> FormatError:
    """The error for tensors of an unknown network; for a trunk under an unknown prefix, it names the prefix."""
    prefix = next((key.removesuffix(FIRST_OF_A_STAGE) for key in state if key.endswith(f".{FIRST_OF_A_STAGE}")), "")
    if f"{prefix}conv1.weight" in state and prefix:
        return FormatError(
            f"{origin}: a ResNet's tensors under the prefix {prefix!r}, which is not one of the published prefixes",
            hint="save the state again without it, or with module., backbone. or encoder_q. in its place",
        )
    return FormatError(
        f"{origin}: {len(state)} tensors of an unknown network ({name_some(state)})",
        hint="known networks: MGN as LUPerson's projects publish it, and ResNet trunks with torchvision's names",
    )


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


def recognise_trunk(state: Mapping[str, Tensor], prefix: str, *, encoder: Encoder = "q") -> Recognised:
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


def fit(plan: NetworkPlan, own: Mapping[str, Tensor]) -> Recognised:
    """Compares tensors with those of a network, key by key; absent counters become 0."""
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in build_network(plan).state_dict().items()}
    missing = tuple(key for key in wanted if key not in own and key.endswith(COUNTER))
    differences = [Difference(key, None, shape) for key, shape in wanted.items() if key not in own]
    differences = [one for one in differences if not one.key.endswith(COUNTER)]
    differences += [
        Difference(key, tuple(value.shape), wanted.get(key))
        for key, value in own.items()
        if tuple(value.shape) != wanted.get(key)
    ]
    tensors = {**own, **{key: torch.zeros((), dtype=torch.int64) for key in missing}}
    return Recognised(plan, tensors, len(own), (), missing, differences=tuple(differences))


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of residual blocks under a prefix, from the numbers in their keys."""
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def count_rows(weight: Tensor) -> int:
    """Outputs of a layer, from its weight; at least 1, so that an unexpected shape is reported as a difference."""
    return max(1, min(weight.shape[0] if weight.dim() else 0, MOST))


def nearest_arch(blocks: tuple[int, ...], *, is_deep: bool) -> ResNetArch:
    """The depth with these numbers of blocks, or the one that comes closest."""
    depths: list[ResNetArch] = [arch for arch in DEPTHS if (arch != "r18") == is_deep]
    return min(depths, key=lambda arch: sum(abs(a - b) for a, b in zip(DEPTHS[arch].blocks, blocks, strict=True)))


def turn_to_rgb(found: Recognised) -> Recognised:
    """The same network for RGB after training on BGR: channels of stem and constants in reverse order."""
    stem = "backbone.0.weight" if isinstance(found.plan.head, MgnHead) else "backbone.conv1.weight"
    tensors = {**found.tensors, stem: found.tensors[stem].flip(1)}
    return replace(found, tensors=tensors, mean=_turn(found.mean), std=_turn(found.std))


def _turn(values: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[2], values[1], values[0])


def _triple(values: Tensor | None) -> tuple[float, float, float] | None:
    """A file's pixel constants, which are on a scale of 255, as numbers in [0, 1]."""
    if values is None or values.numel() != 3:
        return None
    first, second, third = (values.double().flatten() / 255).tolist()
    return first, second, third
