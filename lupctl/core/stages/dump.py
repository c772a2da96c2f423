"""Features of a pack or of a plain folder of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lupctl.core.choices import ROLE_CODES, FeatureType, Precision, Role
from lupctl.core.device import pick_precision
from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.files import check_absent
from lupctl.core.formats.features import FEATURES_FORMAT, Features, write_features
from lupctl.core.formats.pack import open_pack
from lupctl.core.formats.record import build_record
from lupctl.core.formats.samples import Samples
from lupctl.core.loading.images import FileImages, PackImages
from lupctl.core.loading.loaders import default_workers
from lupctl.core.progress import Progress
from lupctl.core.retrieval.extract import describe_network, extract_features, open_encoder
from lupctl.core.sources.images import ImagesSource

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
    """Computes and writes the features.

    Raises:
        UsageError: the output exists.
        DataError: no images of the wanted roles, or an image of a pack that cannot be decoded.
    """
    check_absent(job.out, force=job.force)
    images, samples, inputs, quarantine = open_images(job.data, job.roles)
    precision = pick_precision(job.precision, device)
    encoder, checkpoint = open_encoder(job.checkpoint, device=device, precision=precision)
    features = extract_features(
        encoder,
        images,
        chunk=job.chunk,
        workers=default_workers(device) if job.workers is None else job.workers,
        flip=job.flip,
        progress=progress,
    )
    record = build_record(
        "features",
        FEATURES_FORMAT,
        command=job.command,
        recipe=checkpoint.header["recipe"],
        parents={"checkpoint": checkpoint.fingerprint, **{key: str(value) for key, value in inputs["parents"].items()}},
        facts={
            "dataset": inputs["dataset"],
            "flip": job.flip,
            "precision": str(precision).removeprefix("torch."),
            "network": checkpoint.header["network"],
            "preprocessing": checkpoint.header["preprocessing"],
            "quarantine": list(quarantine),
            **inputs.get("facts", {}),
        },
    )
    write_features(job.out, Features(features.astype(job.kind), samples, record))
    count, dim = features.shape
    return DumpResult(job.out, count, dim, describe_network(checkpoint.header), quarantine)


def count_images(job: DumpJob) -> dict[str, int]:
    """How many images a job will run on; nothing is decoded."""
    if is_pack(job.data):
        return {"images": len(select_roles(open_pack(job.data).samples, job.roles))}
    return {"images": len(ImagesSource(job.data, dataset=job.data.name).list_images())}


def open_images(
    data: Path, roles: Sequence[Role]
) -> tuple[PackImages | FileImages, Samples, dict[str, Any], tuple[str, ...]]:
    """The images of a pack or folder, who is on them, where they come from, and what was left out.

    Raises:
        DataError: there are none.
    """
    if is_pack(data):
        pack = open_pack(data)
        rows = select_roles(pack.samples, roles)
        if len(rows) == 0:
            raise DataError(f"{data}: no images of role {', '.join(roles)}", hint=f"lupctl data info {data}")
        inputs: dict[str, Any] = {
            "dataset": pack.dataset,
            "parents": {f"pack:{pack.dataset}": pack.fingerprint},
            "facts": {
                PASSED_ON[key]: value for key, value in pack.record.get("source", {}).items() if key in PASSED_ON
            },
        }
        return PackImages([pack], rows), pack.samples.select(rows), inputs, ()
    listing = ImagesSource(data, dataset=data.name).list_images()
    files = FileImages(f"{data}/{name}" for name in listing.names)
    readable, quarantine = np.zeros(len(listing), np.bool_), []
    for index, name in enumerate(listing.names):
        try:
            files.decode(index)
            readable[index] = True
        except CorruptImageError as error:
            quarantine.append(f"{name}: {error.message}")
    if not readable.any():
        raise DataError(f"{data}: none of the {len(listing)} files is an image", hint="name a folder of images")
    samples = Samples(listing.person, listing.camera, listing.role, listing.names).select(readable)
    paths = FileImages(f"{data}/{name}" for name in samples.names)
    return paths, samples, {"dataset": data.resolve().name, "parents": {}}, tuple(quarantine)


def select_roles(samples: Samples, roles: Sequence[Role]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of the wanted roles; without a wish queries and gallery, or everything where there are none."""
    if not roles:
        wanted = [ROLE_CODES["query"], ROLE_CODES["gallery"]]
        rows = np.flatnonzero(np.isin(samples.role, wanted))
        return rows if len(rows) else np.arange(len(samples))
    return np.flatnonzero(np.isin(samples.role, [ROLE_CODES[role] for role in roles]))
