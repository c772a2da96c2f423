"""Conversion of published weights to a checkpoint of lupctl, with every tensor accounted for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.osnet_plan import OSNET_SIZES, OsnetPlan
from lupctl.core.formats.weights.plan import MgnHead, NoHead, ProjectionHead, ResNetPlan, TrunkPlan, describe_trunk
from lupctl.core.stages.convert.pixels import is_turned, pick_pixels
from lupctl.core.stages.convert.refusals import check_encoder, check_finite, check_use, mismatch, refuse_own
from lupctl.core.system.disk.atomic import check_absent, file_fingerprint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.foreign.fitting import Recognised
from lupctl.core.training.nets.foreign.grids import AS_PUBLISHED, Asked
from lupctl.core.training.nets.foreign.recognise import recognise, turn_to_rgb


@dataclass(frozen=True)
class ConvertJob:
    """One file to convert.

    Args:
        source: the foreign file.
        out: the checkpoint.
        recipe: gives the network its filter and, if the file has none, pixel constants; and a residual network its
            image size; None for what is published for such a network.
        reid: reject a file that is not a re-id model.
        start: reject a file that is one, as it was fine-tuned already.
        bgr: the network was trained on BGR.
        encoder: which encoder of a training checkpoint to use; None for the one that published weights are made from.
        asked: image size and stride of a vision transformer, where no tensor says them.
        force: overwrite.
        command: the command line, for the record.
    """

    source: Path
    out: Path
    recipe: str | None = None
    reid: bool = False
    start: bool = False
    bgr: bool = False
    encoder: Encoder | None = None
    asked: Asked = AS_PUBLISHED
    force: bool = False
    command: tuple[str, ...] = ()


def convert(job: ConvertJob, progress: Progress, *, dry: bool = False) -> dict[str, Any]:
    """Recognise the network in a file and write it as a checkpoint.

    Args:
        job: what to convert.
        progress: for lines that say what was taken for what the file does not say.
        dry: only recognise and compare.

    Returns:
        what was recognised, as the command prints it.

    Raises:
        UsageError: the output exists, or the file is already a checkpoint.
        FormatError: the file is damaged, would have to be executed, has no known network, or not one for such images.
        MismatchError: tensors are missing, unexpected or of another shape.
    """
    check_absent(job.out, force=job.force)
    refuse_own(job.source)
    state = read_foreign(job.source, encoder=job.encoder)
    found = recognise(state.tensors, origin=str(job.source), encoder=job.encoder, asked=job.asked, inside=state.inside)
    if found.differences:
        raise mismatch(job.source, found)
    check_encoder(job.source, found, job.encoder, state.inside)
    check_use(job.source, job.out, found, reid=job.reid, start=job.start)
    check_finite(job.source, found, state.tensors)
    if not job.bgr and is_turned(found):
        raise FormatError(
            f"{job.source}: pixel_mean is ImageNet's in the order blue, green, red; lupctl feeds networks RGB",
            hint="--bgr reverses the channels of the first convolution and the constants",
        )
    found = turn_to_rgb(found) if job.bgr else found
    pixels, constants_from = pick_pixels(found, job.recipe, job.source, progress)
    for note in found.notes:
        progress.say(note)
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
            cameras=found.cameras,
        )
        write_checkpoint(job.out, found.tensors, header)
    return {
        "path": str(job.out),
        **describe_found(found),
        "inside": list(state.inside),
        "beside": list(state.beside),
        "pixels": {**pixels.model_dump(mode="json"), "constants_from": constants_from},
    }


def describe_found(found: Recognised) -> dict[str, Any]:
    """What was recognised, as the command prints it."""
    trunk, head = found.plan.trunk, found.plan.head
    return {
        "network": "trunk" if isinstance(head, NoHead) else head.kind,
        "arch": trunk.arch or describe_trunk(trunk),
        "description": describe_trunk(trunk),
        "use": "initialisation" if found.is_start else "re-id model",
        "width": stem_width(trunk),
        "trunk": trunk.to_json(),
        "head": head.to_json(),
        "extra_bn": isinstance(head, MgnHead) and head.extra_bn,
        "classes": 0 if isinstance(head, NoHead | ProjectionHead) else head.classes,
        "cameras": list(found.cameras),
        "prefix": found.prefix,
        "matched": found.matched,
        "ignored": list(found.ignored),
        "missing": list(found.missing),
    }


def stem_width(trunk: TrunkPlan) -> int:
    """Channels of a trunk's stem; those of a transformer's tokens in its first stage."""
    if isinstance(trunk, OsnetPlan):
        return OSNET_SIZES[trunk.arch].widths[0]
    return trunk.width if isinstance(trunk, ResNetPlan) else trunk.dim
