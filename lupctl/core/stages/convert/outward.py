"""Writing our trunks for other programs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from lupctl.core.choices import OutwardNames
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.formats.weights.header import HEADER_KEY, Preprocessing, format_header
from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.system.disk.atomic import atomic_path, check_absent
from lupctl.core.training.nets.foreign.outward import OSNET_PARTS, TRUNK, outward_trunk, timm_call

SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class Written:
    """What was written, or would be.

    Args:
        path: the file.
        trunk: what it is.
        tensors: how many.
        left_out: keys of the checkpoint that are not part of the trunk.
        pixels: of the network's images.
        call: the line of Python that makes timm's network for it; None where there is none.
    """

    path: Path
    trunk: str
    tensors: int
    left_out: tuple[str, ...]
    pixels: Preprocessing
    call: str | None


def write_trunk(source: Path, out: Path, names: OutwardNames, *, force: bool, dry: bool = False) -> Written:
    """Write a checkpoint's trunk as a flat state by foreign names, without pooling and head.

    Args:
        source: a checkpoint of lupctl.
        out: `.pth` for torch.load, or `.safetensors`, whose header keeps the checkpoint's header.
        names: whose.
        force: overwrite.
        dry: only look.

    Raises:
        UsageError: `out` exists, or has another ending.
        FormatError: not a checkpoint of lupctl, or its trunk has no such names.
    """
    check_absent(out, force=force)
    if out.suffix not in (".pth", SAFETENSORS):
        raise UsageError(f"{out}: expected a name that ends in .pth or .safetensors", hint="--out trunk.pth")
    checkpoint = read_checkpoint(source)
    plan, pixels = checkpoint.header.network, checkpoint.header.preprocessing
    state = outward_trunk(plan, checkpoint.tensors, names, origin=str(source))
    call = None
    if isinstance(plan.trunk, ViTPlan) and names == "timm":
        call = timm_call(plan.trunk, height=pixels.height, width=pixels.width)
    if not dry:
        with atomic_path(out) as partial:
            if out.suffix == ".pth":
                with partial.open("wb") as stream:  # to a path torch writes by itself, and loses the system's error
                    torch.save(state, stream)
            else:
                header = format_header(checkpoint.header, "checkpoint")
                save_file(state, partial, metadata={f"{HEADER_KEY}_source": header})
    written = OSNET_PARTS if names == "torchreid" else (TRUNK,)
    return Written(
        path=out,
        trunk=describe_trunk(plan.trunk),
        tensors=len(state),
        left_out=tuple(key for key in checkpoint.tensors if not key.startswith(written)),
        pixels=pixels,
        call=call,
    )
