"""Published networks, recognised by the names and shapes of their tensors."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.plan import MgnHead
from lupctl.core.system.examples import name_some
from lupctl.core.training.nets.foreign.fitting import Recognised
from lupctl.core.training.nets.foreign.resnet import TRUNK_PREFIXES, recognise_mgn, recognise_trunk

FIRST_OF_A_STAGE = "layer1.0.conv1.weight"


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


def turn_to_rgb(found: Recognised) -> Recognised:
    """The same network for RGB after training on BGR: channels of stem and constants in reverse order."""
    stem = "backbone.0.weight" if isinstance(found.plan.head, MgnHead) else "backbone.conv1.weight"
    tensors = {**found.tensors, stem: found.tensors[stem].flip(1)}
    return replace(found, tensors=tensors, mean=_turn(found.mean), std=_turn(found.std))


def _turn(values: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[2], values[1], values[0])
