"""What keeps a foreign file from becoming a checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.foreign import NETWORKS
from lupctl.core.formats.weights.header import has_header, read_header
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import MgnHead, NoHead, describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.training.nets.foreign.fitting import MismatchError, Recognised, difference_rows


def refuse_own(path: Path) -> None:
    """Reject a file that is already a checkpoint of lupctl.

    Raises:
        UsageError: it is one.
        FormatError: it is one of another format, or damaged.
    """
    if not has_header(path):
        return
    read_header(path)  # for one of another format, raises an error with the command that makes it again
    raise UsageError(
        f"{path}: is already a checkpoint of lupctl",
        hint=f"use it as it is, as in lupctl finetune DATASET --from {path}; --to timm exports its trunk",
    )


def check_use(source: Path, out: Path, found: Recognised, *, reid: bool, start: bool) -> None:
    """Fails if a re-id model is wanted and the file is a start, and the other way round.

    Args:
        source: the file.
        out: the checkpoint that it would become, for the hint.
        found: what it is.
        reid: a re-id model is wanted.
        start: a start is wanted.

    Raises:
        FormatError: it is the other one.
    """
    trunk, is_start = describe_trunk(found.plan.trunk), found.is_start
    if reid and is_start:
        raise FormatError(
            f"{source}: a pre-trained {trunk}{'' if found.is_initial else ' trunk without heads'}, not a re-id model",
            hint=f"to start from it: leave out --reid, then lupctl finetune DATASET --from {out}",
        )
    if start and not is_start:
        raise FormatError(
            f"{source}: a re-id model, {trunk} with head {found.plan.head.kind}, fine-tuned already; not a start",
            hint=f"to use it as it is: leave out --start, then lupctl dump {out} DATASET",
        )


def check_encoder(source: Path, found: Recognised, encoder: Encoder | None, inside: tuple[str, ...]) -> None:
    """Fails if one of two networks is asked for, and the file has no two.

    Args:
        source: the file.
        found: the network in it.
        encoder: that was asked for.
        inside: names of the dictionaries that its tensors are in.

    Raises:
        FormatError: it has one network.
    """
    named = {name for names in NETWORKS.values() for name in names}
    is_one_of_two = "encoder_" in found.prefix or not named.isdisjoint(inside)
    if encoder is not None and not is_one_of_two:
        raise FormatError(
            f"{source}: has one network, not a trained one and its average, of which --encoder {encoder} is one",
            hint="leave out --encoder",
        )


def check_finite(source: Path, found: Recognised, state: Mapping[str, Tensor]) -> None:
    """Fails if a number of the network is NaN or infinite.

    Args:
        source: the file.
        found: the network in it.
        state: all tensors by the keys of the file, which the error names.

    Raises:
        FormatError: one is.
    """
    constants = (*(found.mean or ()), *(found.std or ()))
    if not all(map(math.isfinite, constants)):
        raise FormatError(f"{source}: its pixel constants are not finite numbers", hint="download it again")
    left_out = set(found.ignored)
    broken = [key for key, value in state.items() if key not in left_out and not torch.isfinite(value).all()]
    if broken:
        raise FormatError(
            f"{source}: {count_things(len(broken), 'tensor')} with numbers that are not finite ({name_some(broken)})",
            hint="download it again, or take an earlier checkpoint of that training",
        )


def mismatch(source: Path, found: Recognised, *, where: str = "") -> MismatchError:
    """The error for a partial match: counts, the nearest architecture, and a table of differences.

    Args:
        source: the file.
        found: the network in it.
        where: what comes before the network, where the file has several.
    """
    kinds = {
        "missing": [one for one in found.differences if one.found is None],
        "not in the network": [one for one in found.differences if one.expected is None],
        "of another shape": [one for one in found.differences if one.found is not None and one.expected is not None],
    }
    counts = [f"{len(ones)} {what} ({name_some(one.key for one in ones)})" for what, ones in kinds.items() if ones]
    return MismatchError(
        f"{source}: {where}nearest is {describe_nearest(found)}, but {'; '.join(counts)}",
        hint="download it again, or name a file with a layout that lupctl model convert --help lists",
        rows=difference_rows(found.differences),
    )


def describe_nearest(found: Recognised) -> str:
    """The network that a file comes closest to."""
    trunk, head = found.plan.trunk, found.plan.head
    if isinstance(trunk, ViTPlan | SwinPlan | OsnetPlan):
        return f"{describe_trunk(trunk)}{'' if isinstance(head, NoHead) else f' with head {head.kind}'}"
    name, extra = "trunk", ""
    if isinstance(head, MgnHead):
        name, extra = "mgn", f"{', with' if head.extra_bn else ', without'} extra batch norm"
    return f"{name} {trunk.arch} of width {trunk.width}{extra}"
