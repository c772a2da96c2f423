"""What a scoring asks for, and whether its two networks can be compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupctl.core.choices import CameraUse, MovementDistance, Pooling, Precision
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.images.sheet import check_sheet
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network, read_header
from lupctl.core.formats.weights.plan import JpmHead, describe_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.training.nets.meta import build_empty, embed_nothing
from lupctl.core.workspace import CHECKPOINT_NAME

# What may change between a trunk and itself fine-tuned: strides, the grid of patches, windows, side information, a
# semantic controller and its weight.
MAY_DIFFER: Final = {
    "last_stride", "stride", "rows", "columns", "position", "window", "semantic_weight", "cameras", "views",
    "side_scale", "unknown_camera",
}  # fmt: skip


@dataclass(frozen=True)
class ScoreJob:
    """One command's worth of scores.

    Args:
        pack: whose images are scored, all of them.
        before, after: checkpoints of a network and of itself fine-tuned.
        out: the scores file.
        distance: between the two features of an image.
        sheet: a picture of the best, middle and worst images; None for none.
        cameras: the rule for the images' cameras, for a network that takes them; None takes the default.
        precision: of the forward passes.
        chunk: images per forward pass.
        workers: decoding processes per device; None picks.
        force: overwrite.
        command: the command line, for the record.
    """

    pack: Path
    before: Path
    after: Path
    out: Path
    distance: MovementDistance = "cosine"
    sheet: Path | None = None
    cameras: CameraUse | None = None
    precision: Precision = "float32"
    chunk: int = 128
    workers: int | None = None
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Two networks whose features can be compared.

    Args:
        images: of the pack.
        dim: D of both features.
        pooling: of both trunks' maps, that of the network before.
        before, after: their headers.
        prints: the fingerprints of their files, before and after.
    """

    images: int
    dim: int
    pooling: Pooling
    before: CheckpointHeader
    after: CheckpointHeader
    prints: tuple[str, str]


def compare_networks(job: ScoreJob) -> Compared:
    """What there is to compare; no image is decoded and no weight is read.

    Raises:
        DataError: the pack has no images, or a checkpoint is damaged.
        UsageError: one network twice, or two whose features cannot be compared; or the sheet exists already.
    """
    if job.sheet is not None:
        check_sheet(job.sheet, force=job.force)
    before, after = read_header(job.before), read_header(job.after)
    prints = file_fingerprint(job.before), file_fingerprint(job.after)
    if prints[0] == prints[1]:
        raise UsageError(
            f"--before {job.before} --after {job.after}: the same network twice, whose features do not move",
            hint="fine-tune it first: lupctl finetune DATASET --from RUN, and name that run --after",
        )
    pooling = before.network.pooling
    dims = [_dim(header, pooling) for header in (before, after)] if _alike(before, after, pooling) else []
    if len(set(dims)) != 1:
        raise UsageError(
            f"--before {job.before}: {describe_network(before)}; --after {job.after}: {describe_network(after)}: "
            f"features of {describe_trunk(before.network.trunk)} and of {describe_trunk(after.network.trunk)} cannot "
            "be compared",
            hint="name a network and what was fine-tuned from it: lupctl finetune DATASET --from RUN",
        )
    images = len(open_pack(job.pack))
    if images == 0:
        raise DataError(f"{job.pack}: has no images to score", hint=f"lupctl data info {job.pack}")
    return Compared(images, dims[0], pooling, before, after, prints)


def _alike(before: CheckpointHeader, after: CheckpointHeader, pooling: Pooling) -> bool:
    """Whether both trunks give the same kind of maps, and these can be pooled in this way."""
    trunks = [header.network.trunk for header in (before, after)]
    if trunks[0].model_dump(exclude=MAY_DIFFER) != trunks[1].model_dump(exclude=MAY_DIFFER):
        return False
    if pooling != "token" and any(isinstance(header.network.head, JpmHead) for header in (before, after)):
        return False  # it gives the class token and no map
    return pooling != "parts" or all(isinstance(trunk, ViTPlan) and trunk.parts > 0 for trunk in trunks)


def _dim(header: CheckpointHeader, pooling: Pooling) -> int:
    network, pixels = build_empty(header.network).eval(), header.preprocessing
    return embed_nothing(network, height=pixels.height, width=pixels.width, pooling=pooling).shape[1]


def name_network(checkpoint: Path) -> str:
    """What a user would call a checkpoint: the run of it, else the file.

    >>> name_network(Path("lup/runs/dino/checkpoint.safetensors")), name_network(Path("weights/dino.safetensors"))
    ('dino', 'weights/dino.safetensors')
    """
    return checkpoint.parent.name if checkpoint.name == CHECKPOINT_NAME and checkpoint.parent.name else str(checkpoint)
