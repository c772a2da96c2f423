"""Loads what a fine-tuning run starts from into its network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import Checkpoint, load_strictly, read_checkpoint
from lupctl.core.formats.weights.plan import FcHead, JpmHead, MgnHead, NeckHead, PartsHead, TrunkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.stages.finetune.checks import has_other_cameras
from lupctl.core.system.examples import name_some
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.nets.heads import CLASSIFIERS
from lupctl.core.training.nets.jpm import JPM_CLASSIFIERS, JPM_NEW_PARTS, JpmNetwork, spread_blocks
from lupctl.core.training.nets.mgn import MGN_CLASSIFIERS, NEW_PARTS, MgnNetwork, spread_trunk
from lupctl.core.training.nets.networks import ReidNetwork
from lupctl.core.training.nets.osnet.network import FcNetwork
from lupctl.core.training.nets.parts import PartsNetwork
from lupctl.core.training.nets.swin.starts import CONTROLLER, fit_swin, has_controller, say_fit
from lupctl.core.training.nets.swin.trunk import SwinTrunk
from lupctl.core.training.nets.vit.position import resize_position
from lupctl.core.training.nets.vit.trunk import ViTTrunk

# Tables of cameras: of a trunk, new where the start has none.
SIDE_KEYS = ("sie_embed", "sie_unknown")
BACKBONE = "backbone."


def load_checkpoint(network: Classifying, start: Path, datasets: Sequence[str] = ()) -> str:
    """Load all usable tensors of a checkpoint into a network; returns a description of them for the log.

    Args:
        network: modified.
        start: the checkpoint.
        datasets: that the network is trained on; a table of the cameras of others is not used.

    Raises:
        FormatError: the checkpoint does not fit.
    """
    checkpoint = read_checkpoint(start)
    if has_other_cameras(checkpoint.header, datasets):
        tables = tuple(f"{BACKBONE}{key}" for key in SIDE_KEYS)
        own = {key: value for key, value in checkpoint.tensors.items() if key not in tables}
        checkpoint = replace(checkpoint, tensors=own)
    head = checkpoint.header.network.head
    if isinstance(network, MgnNetwork) and isinstance(head, MgnHead):
        count = load_like(network, checkpoint, MGN_CLASSIFIERS)
        return f"{count} tensors from {start}, heads included; new classifiers"
    # A neck is of the persons that it was trained with; a network without a classifier has no persons.
    if isinstance(network, ReidNetwork) and network.head.classifier is not None and isinstance(head, NeckHead):
        count = load_like(network, checkpoint, CLASSIFIERS)
        return f"{count} tensors from {start}, neck included; new classifier{say_table(network, checkpoint)}"
    if isinstance(network, FcNetwork) and isinstance(head, FcHead):
        return f"{load_like(network, checkpoint, CLASSIFIERS)} tensors from {start}, layer fc included; new classifier"
    if isinstance(network, PartsNetwork) and isinstance(head, PartsHead):
        count = load_like(network, checkpoint, CLASSIFIERS)
        return f"{count} tensors from {start}, necks included; new classifier{say_table(network, checkpoint)}"
    if isinstance(network, JpmNetwork) and isinstance(head, JpmHead):
        count = load_like(network, checkpoint, JPM_CLASSIFIERS)
        return f"{count} tensors from {start}, both last blocks and necks included; new classifiers" + say_table(
            network, checkpoint
        )
    trunk = {key.removeprefix(BACKBONE): value for key, value in checkpoint.tensors.items() if key.startswith(BACKBONE)}
    fitted = fit_trunk(network, trunk, checkpoint.header.network.trunk, origin=str(start))
    load_trunk(network, fitted, origin=str(start))
    left = len(checkpoint.tensors) - len(trunk)
    unused = f"; {left} of its head not used, new head" if left else "; new head"
    return f"{len(trunk)} trunk tensors from {start}{unused}{say_table(network, checkpoint)}"


def say_table(network: Classifying, checkpoint: Checkpoint) -> str:
    """What became of a table of cameras, of positions, or of a controller, for the line about a start."""
    found = checkpoint.header.network.trunk
    if isinstance(found, SwinPlan) and isinstance(network.backbone, SwinTrunk):
        return say_fit(found, network.backbone.plan)
    if not isinstance(found, ViTPlan) or isinstance(network, MgnNetwork) or not isinstance(network.backbone, ViTTrunk):
        return ""
    wanted, said = network.backbone.plan, ""
    if wanted.side_rows and not found.side_rows:
        said += f"; new table of {wanted.side_rows} cameras"
    if found.side_rows and wanted.side_rows:
        trained = name_some(pack.dataset for pack in checkpoint.header.data)
        if f"{BACKBONE}{SIDE_KEYS[0]}" in checkpoint.tensors:
            said += f"; its table of {found.side_rows} cameras kept"
            said += "" if trained else ", by their numbers: it does not say of which dataset they are"
        else:
            said += f"; new table of {wanted.side_rows} cameras, as its own {found.side_rows} are of {trained}"
    if found.side_rows and not wanted.side_rows:
        said += f"; its table of {found.side_rows} cameras not used"
    if (found.rows, found.columns) != (wanted.rows, wanted.columns):
        said += f"; positions resized from {found.rows} x {found.columns} to {wanted.rows} x {wanted.columns}"
    return said


def load_like(network: Classifying, checkpoint: Checkpoint, classifiers: tuple[str, ...]) -> int:
    """Load everything from the checkpoint of a network with the same head, except the classifiers for its own persons.

    Args:
        network: modified.
        checkpoint: of a network with the same head.
        classifiers: key prefixes of its classifiers.

    Returns:
        number of loaded tensors.

    Raises:
        FormatError: another tensor is missing, unexpected or of another shape.
    """
    origin, plan = str(checkpoint.path), checkpoint.header.network.trunk
    kept = {key: value for key, value in checkpoint.tensors.items() if not key.startswith(classifiers)}
    heads = {key: value for key, value in kept.items() if not key.startswith(BACKBONE)}
    trunk = {key.removeprefix(BACKBONE): value for key, value in kept.items() if key not in heads}
    if isinstance(plan, ViTPlan | SwinPlan):
        fitted = fit_trunk(network, trunk, plan, origin=origin)
        kept = {**heads, **{f"{BACKBONE}{key}": value for key, value in fitted.items()}}
    may_lack = (*classifiers, *new_tables(network, trunk))
    return load_strictly(network, kept, origin=origin, may_lack=may_lack)


def load_trunk(network: Classifying, trunk: Mapping[str, Tensor], *, origin: str) -> int:
    """Load a whole trunk's tensors into a network; in an mgn into all branches, in a jpm its last block twice.

    Args:
        network: modified.
        trunk: by the keys of its family.
        origin: for the error.

    Returns:
        number of tensors in the trunk.

    Raises:
        FormatError: one is missing, unexpected or of another shape.
    """
    if isinstance(network, MgnNetwork):
        load_strictly(network, spread_trunk(trunk), origin=origin, may_lack=NEW_PARTS)
    elif isinstance(network, JpmNetwork):
        spread = spread_blocks(trunk, depth=network.backbone.plan.depth)
        load_strictly(network, spread, origin=origin, may_lack=(*JPM_NEW_PARTS, *new_tables(network, trunk)))
    else:
        own = tuple(key.removeprefix(BACKBONE) for key in new_tables(network, trunk))
        load_strictly(network.backbone, trunk, origin=origin, may_lack=own)
    return len(trunk)


def new_tables(network: Classifying, trunk: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Keys of tables of cameras and of a controller that a start's trunk lacks; they keep what they were drawn with."""
    if isinstance(network.backbone, SwinTrunk):
        return () if has_controller(trunk) else tuple(f"{BACKBONE}{key}" for key in CONTROLLER)
    if isinstance(network, MgnNetwork) or not network.needs_cameras:
        return ()
    return tuple(f"{BACKBONE}{key}" for key in SIDE_KEYS if key not in trunk)


def fit_trunk(network: Classifying, trunk: Mapping[str, Tensor], found: TrunkPlan, *, origin: str) -> dict[str, Tensor]:
    """A trunk's tensors with positions for the network's grid or windows, and without tables it has no use for.

    Args:
        network: to load them into.
        trunk: by the keys of its family.
        found: what the trunk was.
        origin: for the error.

    Raises:
        FormatError: positions are not finite.
    """
    if isinstance(found, SwinPlan) and isinstance(network.backbone, SwinTrunk):
        return fit_swin(trunk, found, network.backbone.plan)
    if not isinstance(found, ViTPlan) or isinstance(network, MgnNetwork) or not isinstance(network.backbone, ViTTrunk):
        return dict(trunk)
    wanted = network.backbone.plan
    fitted = {key: value for key, value in trunk.items() if wanted.side_rows or key not in SIDE_KEYS}
    if not wanted.unknown_camera:
        fitted.pop("sie_unknown", None)
    position, special = fitted.get("pos_embed"), 1 + found.parts
    if position is None or position.shape[1:2] != (special + found.rows * found.columns,):
        return fitted  # refused by name when it is loaded
    if not bool(torch.isfinite(position).all()):
        raise FormatError(f"{origin}: its position embedding is not finite", hint="download or make the file again")
    source, target = (found.rows, found.columns), (wanted.rows, wanted.columns)
    grid = resize_position(position[:, special:], source=source, target=target, how=wanted.position)
    return {**fitted, "pos_embed": torch.cat([position[:, :special], grid], dim=1)}
