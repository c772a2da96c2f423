"""A dump with everything it needs open."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from lupctl.core.errors import DataError
from lupctl.core.formats.features.cameras import CAMERAS_KEY
from lupctl.core.formats.features.file import FEATURES_FORMAT, read_features_head
from lupctl.core.formats.record import build_record
from lupctl.core.formats.weights.settings import SETTINGS_KEY
from lupctl.core.ranking.retrieval.cameras import CameraRows, CameraTable, choose_rows
from lupctl.core.ranking.retrieval.extract import ImageEncoder, open_encoder
from lupctl.core.stages.dump.inputs import Inputs, open_images
from lupctl.core.stages.dump.job import DumpJob, DumpResult, Shard, own_chunks
from lupctl.core.stages.dump.network import DumpNetwork, describe_checkpoint, describe_onnx, open_onnx_job
from lupctl.core.system.jobs.precision import pick_precision

# Of features that are the trunk's alone.
POOLING_KEY: Final = "pooling"
# All that the numbers of a features file depend on, by which the same dump knows it again.
STORY_KEY: Final = "story"
# Of features that compiled passes gave, which round in their own way.
COMPILED_KEY: Final = "compiled"


@dataclass(frozen=True)
class Work:
    """A dump with everything it needs open.

    Args:
        job: what to do.
        inputs: all images, also those of other shards.
        encoder: the network.
        network: what is known of it.
        story: all that the numbers depend on, the command line aside.
        chunks: those of this job, among all.
        cameras: the rows of all images; None for a network that takes no cameras.
    """

    job: DumpJob
    inputs: Inputs
    encoder: ImageEncoder
    network: DumpNetwork
    story: dict[str, Any]
    chunks: range
    cameras: CameraRows | None = None

    @property
    def rows(self) -> range:
        """The images of this job's chunks."""
        chunk = self.job.chunk
        return range(self.chunks.start * chunk, min(self.chunks.stop * chunk, len(self.inputs.samples)))

    def no_images(self) -> DataError:
        """The error for a folder of which nothing can be read."""
        count = len(self.inputs.samples)
        return DataError(
            f"{self.inputs.dataset}: none of the {count} files is an image", hint="name a folder of images"
        )

    def describe(self, path: Path, *, missing: tuple[int, ...] = ()) -> DumpResult:
        """What a file of this dump holds, in numbers and words."""
        head = read_features_head(path)
        quarantine = tuple(head.record["quarantine"])
        return DumpResult(path, *head.shape, self.network.description, quarantine, missing)


def open_work(job: DumpJob, device: torch.device) -> Work:
    """Opens images and network; nothing is decoded.

    Raises:
        DataError: no images of the wanted roles.
        DataError: an image is from none of the network's cameras, and the rule refuses that.
        FormatError: the checkpoint is damaged.
        UsageError: there are more shards than chunks, a rule for cameras, of which the network takes none, or
            something is set that it has not.
    """
    inputs = open_images(job.data, job.roles)
    chunks = own_chunks(job, len(inputs.samples))
    precision = pick_precision(job.precision, device)
    encoder, network = _open_network(job, device, precision)
    cameras = place_images(job, inputs, network.cameras)
    story = {
        "checkpoint": network.fingerprint,
        "images": inputs.digest,
        "flip": job.flip,
        "precision": str(precision).removeprefix("torch."),
        "chunk": job.chunk,
        "type": job.kind,
        "device": device.type,
        "torch": str(torch.__version__),
        "version": version("lupctl"),
    }
    # Only where there is something to say: chunks of other networks were kept before there were rules for cameras.
    story |= {COMPILED_KEY: True} if job.is_compiled else {}
    story |= {} if job.runtime is None else {job.runtime: version(job.runtime)}
    story |= {} if job.pooling is None else {POOLING_KEY: job.pooling}
    story |= {} if cameras is None else {CAMERAS_KEY: cameras.rule}
    story |= _what_is_set(job)
    return Work(job, inputs, encoder, network, story, chunks, cameras)


def _open_network(job: DumpJob, device: torch.device, precision: torch.dtype) -> tuple[ImageEncoder, DumpNetwork]:
    if job.is_onnx:
        found = open_onnx_job(job, device.type)
        return found.encoder, describe_onnx(found)
    encoder, checkpoint = open_encoder(
        job.checkpoint, device=device, precision=precision, pooling=job.pooling, settings=job.settings
    )
    if job.is_compiled:
        encoder = encoder.compile(job.chunk)
    return encoder, describe_checkpoint(checkpoint.header, checkpoint.fingerprint, origin=str(job.checkpoint))


def place_images(job: DumpJob, inputs: Inputs, table: CameraTable | None) -> CameraRows | None:
    """The row of each image in the network's table of cameras; None for a network without one.

    Raises:
        DataError, UsageError: as `open_work`.
    """
    return choose_rows(
        table, inputs.samples.camera, dataset=inputs.dataset, use=job.cameras, network=str(job.checkpoint)
    )


def build_features_record(
    work: Work, quarantine: list[str], *, shard: Shard | None, story: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The record of a features file, or of a shard of one.

    Args:
        work: the dump.
        quarantine: files that are no images, with reasons.
        shard: which one, where it is one.
        story: of the features, where they were made by others.
    """
    story, network, inputs = story or work.story, work.network, work.inputs
    part: dict[str, Any] = {} if shard is None else {"shard": {"number": shard.number, "of": shard.of, "story": story}}
    if work.cameras is not None:
        rows = None if shard is None else work.rows
        part[CAMERAS_KEY] = asdict(work.cameras.count(rows, left_out=len(quarantine)))
    part |= {COMPILED_KEY: True} if story.get(COMPILED_KEY) else {}
    if work.job.pooling is not None:
        part[POOLING_KEY] = work.job.pooling
    part |= _what_is_set(work.job)
    return build_record(
        "features",
        FEATURES_FORMAT,
        command=work.job.command,
        recipe=network.recipe,
        parents={"checkpoint": network.fingerprint, **inputs.parents},
        facts={
            "dataset": inputs.dataset,
            "device": story["device"],
            "flip": work.job.flip,
            "precision": story["precision"],
            "quarantine": quarantine,
            **network.facts,
            **({STORY_KEY: story} if shard is None else {}),
            **inputs.facts,
            **part,
        },
    )


def _what_is_set(job: DumpJob) -> dict[str, Any]:
    """The entry for what is set of the network; nothing where nothing is."""
    found = job.settings.to_json()
    return {SETTINGS_KEY: found} if found else {}
