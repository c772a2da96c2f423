"""The recipes that networks other than residual ones are trained by where none is named."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.resolve.checkpoints import FINETUNED, WEIGHTLESS, find_checkpoint
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.weights.header import CheckpointHeader

# From ImageNet or scratch, by architecture; the smallest has no published recipe of its own.
BY_ARCH: Final[Mapping[str, str]] = {
    "vit-t": "transreid-ssl-vit-s",
    "vit-s": "transreid-ssl-vit-s",
    "vit-b": "transreid-vit-b",
}
WITH_ICS: Final[Mapping[str, str]] = {
    "vit-t": "cion-vit-t",
    "vit-s": "transreid-ssl-vit-s-ics",
    "vit-b": "transreid-ssl-vit-b-ics",
}
WITH_PARTS: Final[Mapping[str, str]] = {"vit-t": "pass-vit-s", "vit-s": "pass-vit-s", "vit-b": "pass-vit-b"}
# A plain vit-b that was trained on persons before, with a rate for that.
PRETRAINED: Final[Mapping[str, str]] = {**BY_ARCH, "vit-b": "personvit-b"}
WITH_JPM: Final = "transreid-vit-b-s12-sie-jpm"
# Swins, from anything.
OF_SWIN: Final[Mapping[str, str]] = {
    "swin-u": "small-swin",
    "swin-t": "solider-swin-t",
    "swin-s": "solider-swin-s",
    "swin-b": "solider-swin-b",
}
# OSNets, from anything: the rate and batch of the two narrow ones are others.
OF_OSNET: Final[Mapping[str, str]] = {
    "osnet-x1.0": "osnet",
    "osnet-x0.75": "osnet",
    "osnet-x0.5": "osnet-x0.25",
    "osnet-x0.25": "osnet-x0.25",
    "osnet-ibn-x1.0": "osnet-ibn",
    "osnet-ain-x1.0": "osnet-ain",
    "osnet-ain-x0.75": "osnet-ain",
    "osnet-ain-x0.5": "osnet-ain",
    "osnet-ain-x0.25": "osnet-ain",
}


def family(arch: str) -> str:
    """The kind of an architecture, as the plans of its trunks say it.

    >>> [family(arch) for arch in ("r50", "vit-s", "swin-b", "osnet-x0.5")]
    ['resnet', 'vit', 'swin', 'osnet']
    """
    from lupctl.core.recipes.osnet_sections import is_osnet
    from lupctl.core.recipes.swin_sections import is_swin
    from lupctl.core.recipes.vit_sections import is_vit

    if is_osnet(arch):
        return "osnet"
    return "vit" if is_vit(arch) else "swin" if is_swin(arch) else "resnet"


def transformer_recipe(arch: str, header: "CheckpointHeader | None") -> str:
    """The recipe of fine-tuning for a vision or Swin transformer, or an OSNet.

    Args:
        arch: of the network to train.
        header: of what it starts from; None from ImageNet or scratch.
    """
    from lupctl.core.formats.weights.vit_plan import ViTPlan

    for of_family in (OF_SWIN, OF_OSNET):
        if arch in of_family:
            return of_family[arch]
    trunk = None if header is None else header.network.trunk
    if header is None or not isinstance(trunk, ViTPlan):
        return BY_ARCH[arch]
    if header.network.head.kind == "jpm":
        return WITH_JPM
    if trunk.parts:
        return WITH_PARTS[arch]
    if trunk.stem == "ics":
        return WITH_ICS[arch]
    # A converted file does not say what it was trained on; grids for other tasks than persons are square.
    is_of_persons = header.stage == "pretrain" or trunk.rows != trunk.columns
    return (PRETRAINED if is_of_persons else BY_ARCH)[arch]


def first_recipe(space: Workspace, flags: Mapping[str, Any], overrides: Sequence[str]) -> str | None:
    """The recipe that a command without one means as far as it names an architecture, or else a start; else None.

    Args:
        space: the workspace.
        flags: of named options.
        overrides: `--set` entries.

    Raises:
        DataError: it names a start that is not here.
        FormatError: it names one that is no checkpoint.
    """
    from lupctl.core.formats.weights.header import read_header

    arch = _asked("net.arch", flags, overrides)
    if arch is not None:
        return {**BY_ARCH, **OF_SWIN, **OF_OSNET}.get(arch)
    start = _asked("start", flags, overrides)
    if not start or start in (*WEIGHTLESS, FINETUNED):
        return None
    header = read_header(find_checkpoint(space, start, others=WEIGHTLESS))
    # One of no named size is refused by the stage, whatever the recipe.
    trunk = header.network.trunk
    unnamed = {"vit": "vit-b", "swin": "swin-t"}
    return None if trunk.kind == "resnet" else transformer_recipe(trunk.arch or unnamed[trunk.kind], header)


def _asked(key: str, flags: Mapping[str, Any], overrides: Sequence[str]) -> str | None:
    """A key's value on a command line; named options come before `--set`, of which the last counts."""
    if flags.get(key) is not None:
        return str(flags[key])
    values = [
        entry.partition("=")[2].strip().strip("\"'") for entry in overrides if entry.partition("=")[0].strip() == key
    ]
    return values[-1] if values else None
