"""Features of a pack or of a plain folder of images."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, FeatureType, Precision, Role
from lupctl.core.errors import DataError
from lupctl.core.formats.features.chunks import FeatureChunks, open_chunks
from lupctl.core.formats.features.file import FEATURES_FORMAT, Features, write_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.ranking.retrieval.extract import Encoder, embed_chunks, open_encoder
from lupctl.core.system.disk.atomic import check_absent
from lupctl.core.system.jobs.device import pick_precision
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import FileImages, PackImages
from lupctl.core.training.loading.loaders import ChunkDataset, default_workers

# What has to be known of a dataset goes with everything made from it: a pack's entry, and its name in the features.
# The version tells MSMT17's two apart; a record's own `version` is that of lupctl.
PASSED_ON = {"notice": "notice", "version": "dataset_version"}


@dataclass(frozen=True)
class DumpJob:
    """One command's worth of features.

    Args:
        checkpoint: the network.
        data: a pack, or a folder of images.
        out: the features' file.
        roles: which images of a pack; empty takes queries and gallery, or all where there are none.
        flip: adds the mirrored image's feature.
        kind: float32 or float16 on the disk.
        precision: of the forward pass.
        chunk: images per forward pass.
        workers: decoding processes; None picks.
        force: overwrite.
        command: the command line, for the record.
    """

    checkpoint: Path
    data: Path
    out: Path
    roles: tuple[Role, ...] = ()
    flip: bool = False
    kind: FeatureType = "float32"
    precision: Precision = "auto"
    chunk: int = 128
    workers: int | None = None
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class DumpResult:
    """What was written.

    Args:
        path: the file.
        images, dim: its shape.
        network: in words.
        quarantine: files of a folder that are no images, with reasons.
    """

    path: Path
    images: int
    dim: int
    network: str
    quarantine: tuple[str, ...]


def is_pack(path: Path) -> bool:
    """Whether a path is a pack rather than a folder of images."""
    return path.is_file() or any(path.glob("*.h5"))


def dump(job: DumpJob, device: torch.device, progress: Progress) -> DumpResult:
    """Computes and writes the features; goes on behind the last finished chunk of the same dump that was killed.

    Raises:
        UsageError: the output exists, or another process writes it.
        DataError: no images of the wanted roles, or an image of a pack that cannot be decoded.
    """
    check_absent(job.out, force=job.force)
    inputs = open_images(job.data, job.roles)
    precision = pick_precision(job.precision, device)
    encoder, checkpoint = open_encoder(job.checkpoint, device=device, precision=precision)
    fingerprint = checkpoint.fingerprint
    # All that the numbers depend on, the command line aside.
    story = {
        "checkpoint": fingerprint,
        "images": inputs.digest,
        "flip": job.flip,
        "precision": str(precision).removeprefix("torch."),
        "chunk": job.chunk,
        "device": device.type,
        "torch": str(torch.__version__),
        "version": version("lupctl"),
    }
    with open_chunks(job.out, story, job.kind) as chunks:
        _compute(job, encoder, inputs, chunks, progress)
        samples, features, quarantine = _leave_out(inputs, chunks)
        record = build_record(
            "features",
            FEATURES_FORMAT,
            command=job.command,
            recipe=checkpoint.header.recipe,
            parents={"checkpoint": fingerprint, **inputs.parents},
            facts={
                "dataset": inputs.dataset,
                "flip": job.flip,
                "precision": story["precision"],
                "network": checkpoint.header.network.to_json(),
                "preprocessing": checkpoint.header.preprocessing.to_json(),
                "quarantine": list(quarantine),
                **inputs.facts,
            },
        )
        write_features(job.out, Features(features, samples, record))
    count, dim = features.shape
    return DumpResult(job.out, count, dim, describe_network(checkpoint.header), quarantine)


def _compute(job: DumpJob, encoder: Encoder, inputs: "Inputs", chunks: FeatureChunks, progress: Progress) -> None:
    """Adds the chunks that are not there yet."""
    lenient = isinstance(inputs.images, FileImages)
    dataset = ChunkDataset(inputs.images, encoder.view, chunk=job.chunk, lenient=lenient)
    items = range(chunks.done, len(dataset))
    if chunks.is_other:
        progress.say(f"{chunks.path}: of another network, other images or options; begun anew")
    elif chunks.done:
        progress.say(f"{chunks.path}: {chunks.done:,} of {len(dataset):,} chunks are done; going on behind them")
    if len(items) == 0:
        return
    workers = default_workers(encoder.device) if job.workers is None else job.workers
    # One chunk is decoded while it is waited for, wherever that happens; a process would only have to be started.
    workers = workers if len(items) > 1 else 0
    with progress.task("features", total=len(inputs.images), unit="images", done=chunks.done * job.chunk) as bar:
        for damaged, vectors in embed_chunks(encoder, dataset, items, workers=workers, flip=job.flip):
            chunks.append(vectors, list(damaged))
            bar.advance(len(vectors))


def _leave_out(inputs: "Inputs", chunks: FeatureChunks) -> tuple[Samples, NDArray[Any], tuple[str, ...]]:
    """What was computed, without the files that are no images, and what was wrong with those.

    Raises:
        DataError: none of them is an image.
    """
    kept, quarantine = np.ones(len(inputs.samples), np.bool_), []
    for line in chunks.left_out:
        row, _, reason = line.partition(": ")
        kept[int(row)] = False
        quarantine.append(f"{inputs.samples.name[int(row)]}: {reason}")
    if not kept.any():
        chunks.forget()
        raise DataError(f"{inputs.dataset}: none of the {len(kept)} files is an image", hint="name a folder of images")
    features = chunks.gather(len(kept))
    if kept.all():
        return inputs.samples, features, ()
    return inputs.samples.select(kept), features[kept], tuple(quarantine)


def count_images(job: DumpJob) -> dict[str, int]:
    """How many images a job will run on; nothing is decoded."""
    if is_pack(job.data):
        return {"images": len(select_roles(open_pack(job.data).samples, job.roles))}
    return {"images": len(list_files(job.data))}


@dataclass(frozen=True)
class Inputs:
    """The images of a dump, who is on them, and where they come from.

    Args:
        images: N of them.
        samples: (N).
        dataset: its name.
        digest: changes when the images, or their order, do.
        parents: fingerprints by name.
        facts: what has to be known of a dataset, and goes with everything made from it.
    """

    images: PackImages | FileImages
    samples: Samples
    dataset: str
    digest: str
    parents: dict[str, str]
    facts: dict[str, Any]


def open_images(data: Path, roles: Sequence[Role]) -> Inputs:
    """The images of a pack or folder; nothing is decoded.

    Raises:
        DataError: there are none.
    """
    if is_pack(data):
        pack = open_pack(data)
        rows = select_roles(pack.samples, roles)
        if len(rows) == 0:
            raise DataError(f"{data}: no images of role {', '.join(roles)}", hint=f"lupctl data info {data}")
        return Inputs(
            images=PackImages([pack], rows),
            samples=pack.samples.select(rows),
            dataset=pack.dataset,
            digest=f"{pack.fingerprint} {hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()}",
            parents={f"pack:{pack.dataset}": pack.fingerprint},
            facts={PASSED_ON[key]: value for key, value in pack.record.get("source", {}).items() if key in PASSED_ON},
        )
    samples = list_files(data)
    return Inputs(
        images=FileImages(f"{data}/{name}" for name in samples.name),
        samples=samples,
        dataset=data.resolve().name,
        digest=_digest_files(data, samples.name),
        parents={},
        facts={},
    )


def list_files(folder: Path) -> Samples:
    """The files of a folder that may be images; nothing is decoded.

    Raises:
        DataError: there are none.
    """
    # Raw data is read for a folder alone; who dumps a pack does not wait for it.
    from lupctl.core.data.sources.layouts.images import ImagesSource

    return ImagesSource(folder, dataset=folder.name).list_images()


def _digest_files(folder: Path, names: Sequence[str]) -> str:
    """Of names, sizes and times of change; reading every file twice would cost as much as the rest."""
    digest = hashlib.sha256()
    for name in names:
        found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a str per image, not a Path
        digest.update(f"{name}\0{found.st_size} {found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def select_roles(samples: Samples, roles: Sequence[Role]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of the wanted roles; without a wish queries and gallery, or everything where there are none."""
    if not roles:
        wanted = [ROLE_CODES["query"], ROLE_CODES["gallery"]]
        rows = np.flatnonzero(np.isin(samples.role, wanted))
        return rows if len(rows) else np.arange(len(samples))
    return np.flatnonzero(np.isin(samples.role, [ROLE_CODES[role] for role in roles]))
