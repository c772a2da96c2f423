"""Conversion of published weights to a checkpoint of lupctl, with every tensor accounted for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels, has_header, read_header
from lupctl.core.formats.weights.plan import MgnHead
from lupctl.core.recipes.sections import IMAGENET_MEAN, Pixels
from lupctl.core.recipes.shipped import find_text, resolve_recipe
from lupctl.core.recipes.text import parse_recipe
from lupctl.core.system.disk.atomic import check_absent, file_fingerprint
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.foreign.fitting import Recognised
from lupctl.core.training.nets.foreign.recognise import recognise, turn_to_rgb

TABLE_ROWS = 10
NL_NAME = "lupws"


class MismatchError(FormatError):
    """A file whose tensors almost match those of a network.

    Args:
        message, hint: as for every error.
        rows: the first differences: key, shape in the file, shape in the network.
    """

    def __init__(self, message: str, hint: str, rows: tuple[tuple[str, str, str], ...] = ()) -> None:
        super().__init__(message, hint)
        self.rows = rows


@dataclass(frozen=True)
class ConvertJob:
    """One file to convert.

    Args:
        source: the foreign file.
        out: the checkpoint.
        recipe: gives the network its image size, filter and, if the file has none, pixel constants; None for the
            published recipe of such a network.
        reid: reject a file that is not a re-id model.
        bgr: the network was trained on BGR.
        encoder: which encoder of a training checkpoint to use, q or k.
        force: overwrite.
        command: the command line, for the record.
    """

    source: Path
    out: Path
    recipe: str | None = None
    reid: bool = False
    bgr: bool = False
    encoder: Encoder = "q"
    force: bool = False
    command: tuple[str, ...] = ()


def convert(job: ConvertJob, progress: Progress, *, dry: bool = False) -> dict[str, Any]:
    """Recognise the network in a file and write it as a checkpoint.

    Args:
        job: what to convert.
        progress: for a line that says where pixel constants come from if the file has none.
        dry: only recognise and compare.

    Returns:
        what was recognised, as the command prints it.

    Raises:
        UsageError: the output exists, or the file is already a checkpoint.
        FormatError: the file is damaged, would have to be executed, or has no known network.
        MismatchError: tensors are missing, unexpected or of another shape.
    """
    check_absent(job.out, force=job.force)
    refuse_own(job.source)
    found = recognise(read_foreign(job.source), origin=str(job.source), encoder=job.encoder)
    is_reid = isinstance(found.plan.head, MgnHead)
    if found.differences:
        raise mismatch(job.source, found)
    if job.reid and not is_reid:
        raise FormatError(
            f"{job.source}: a pre-trained {found.plan.trunk.arch} trunk without heads, not a re-id model",
            hint=f"to start from it: leave out --reid, then lupctl finetune DATASET --from {job.out}",
        )
    if not job.bgr and is_turned(found):
        raise FormatError(
            f"{job.source}: pixel_mean is ImageNet's in the order blue, green, red; lupctl feeds networks RGB",
            hint="--bgr reverses the channels of the first convolution and the constants",
        )
    if not all(map(math.isfinite, (*(found.mean or ()), *(found.std or ())))):
        raise FormatError(f"{job.source}: its pixel constants are not finite numbers", hint="download it again")
    found = turn_to_rgb(found) if job.bgr else found
    recipe = job.recipe or default_recipe(found, job.source.name)
    pixels = pick_pixels(found, recipe)
    if found.mean is None or found.std is None:
        progress.say(f"pixels: {job.source} has no constants; using those of {recipe}")
    if not dry:
        header = CheckpointHeader(
            stage="convert",
            command=job.command,
            recipe=None,
            network=found.plan,
            preprocessing=describe_pixels(pixels),
            classes=(),
            parents={"source": file_fingerprint(job.source)},
            data=(),
        )
        write_checkpoint(job.out, found.tensors, header)
    trunk, head = found.plan.trunk, found.plan.head
    return {
        "path": str(job.out),
        "network": "mgn" if is_reid else "trunk",
        "arch": trunk.arch,
        "use": "re-id model" if is_reid else "initialisation",
        "width": trunk.width,
        "extra_bn": isinstance(head, MgnHead) and head.extra_bn,
        "classes": head.classes if isinstance(head, MgnHead) else 0,
        "prefix": found.prefix,
        "matched": found.matched,
        "ignored": list(found.ignored),
        "missing": list(found.missing),
        "pixels": {**pixels.model_dump(mode="json"), "constants_from": "file" if found.mean and found.std else recipe},
    }


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
        hint=f"use it as it is, as in lupctl finetune DATASET --from {path}; --to torchvision exports its trunk",
    )


def default_recipe(found: Recognised, name: str) -> str:
    """The shipped recipe of this published network.

    PNL's prototypes distinguish LUPerson-NL from LUPerson in a training checkpoint. A bare backbone has nothing but its
    name: LUPerson-NL's files begin with lupws.
    """
    if isinstance(found.plan.head, MgnHead):
        return "mgn-luperson" if found.plan.head.extra_bn else "mgn-imagenet"
    is_nl = any(key.endswith("prototypes") for key in found.ignored) or name.lower().startswith(NL_NAME)
    return "mgn-luperson-nl" if is_nl else "luperson-moco"


def pick_pixels(found: Recognised, recipe: str) -> Pixels:
    """Size and filter of a recipe of either stage, with the constants of the file if it has any."""
    text, origin = find_text(recipe, None)
    stage = parse_recipe(text, origin=origin).get("stage", "finetune")
    pixels = resolve_recipe(stage, recipe).pixels
    if not isinstance(found.plan.head, MgnHead):  # of pre-training, whatever network that recipe fine-tunes
        pixels = Pixels(mean=pixels.mean, std=pixels.std)
    if found.mean is not None and found.std is not None:
        pixels = pixels.model_copy(update={"mean": found.mean, "std": found.std})
    return pixels


def is_turned(found: Recognised) -> bool:
    """Whether a file's constants are ImageNet's in reverse, the mark of a network that expects BGR."""
    if found.mean is None:
        return False
    return all(abs(mine - theirs) < 1e-3 for mine, theirs in zip(found.mean, reversed(IMAGENET_MEAN), strict=True))


def mismatch(source: Path, found: Recognised) -> MismatchError:
    """The error for a partial match: counts, the nearest architecture, and a table of differences."""
    kinds = {
        "missing": [one for one in found.differences if one.found is None],
        "not in the network": [one for one in found.differences if one.expected is None],
        "of another shape": [one for one in found.differences if one.found is not None and one.expected is not None],
    }
    counts = [f"{len(ones)} {what} ({name_some(one.key for one in ones)})" for what, ones in kinds.items() if ones]
    trunk, name, extra = found.plan.trunk, "trunk", ""
    if isinstance(found.plan.head, MgnHead):
        name, extra = "mgn", f"{', with' if found.plan.head.extra_bn else ', without'} extra batch norm"
    return MismatchError(
        f"{source}: nearest is {name} {trunk.arch} of width {trunk.width}{extra}, but {'; '.join(counts)}",
        hint="download it again, or name a file with a layout that lupctl model convert --help lists",
        rows=tuple((one.key, _shape(one.found), _shape(one.expected)) for one in found.differences[:TABLE_ROWS]),
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape)) or "scalar"
