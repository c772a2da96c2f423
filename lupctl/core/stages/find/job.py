"""The settings of a search for one person, and the pictures of that person."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.data.video.clock import Clocks
from lupctl.core.data.video.tracking import check_tracker
from lupctl.core.errors import CorruptImageError, DataError, UsageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.formats.weights.runtimes.open import runs_alone
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reports.model.find import FindLimits
from lupctl.core.ranking.retrieval.cameras import choose_query_rows
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features, open_encoder
from lupctl.core.ranking.retrieval.onnx.encoder import OnnxEncoder
from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels, open_onnx
from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint
from lupctl.core.ranking.retrieval.warnings import say_other_precision
from lupctl.core.system.disk.atomic import check_absent
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.jobs.precision import pick_precision
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import FileImages

CHUNK = 64


@dataclass(frozen=True)
class FindJob:
    """The settings of one search.

    Args:
        queries: pictures of one person.
        checkpoint: the network.
        features: of all images of the footage, by that network; None if there is nobody in it.
        images: the pack or the folder that the features were made from.
        is_pack: whether it is a pack.
        source: the footage, as the user named it.
        videos: names of the videos that were searched, also of those without a crop; empty takes those of the crops.
        clocks: when a frame was shown.
        after_s, before_s: only crops from these times; None for no limit.
        limits: from which similarity it is the same person; None if no report says so.
        why_no_limits: then the reason, and the command that makes a report.
        link: link boxes into tracklets; None does it in videos without any known person.
        top: how many tracklets of each video to list.
        page: the HTML page; None writes none.
        force: overwrite an existing page.
        command: the command line, for the record.
    """

    queries: tuple[Path, ...]
    checkpoint: Path
    features: Path | None
    images: Path | None
    source: str
    is_pack: bool = True
    videos: tuple[str, ...] = ()
    clocks: Clocks = field(default_factory=lambda: Clocks(None))
    after_s: float | None = None
    before_s: float | None = None
    limits: FindLimits | None = None
    why_no_limits: str = ""
    link: bool | None = None
    top: int = 20
    page: Path | None = None
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Person:
    """A person as a network sees it.

    Args:
        units: (n, D) a unit vector for each picture.
        network: description of the network.
        fingerprint: of the checkpoint.
    """

    units: NDArray[np.float32]
    network: str
    fingerprint: str


def check_find(job: FindJob) -> None:
    """Checks what can be checked before anything is computed.

    Raises:
        DataError: a picture of the person does not exist, or is not an image.
        UsageError: the page exists and `force` is not set.
    """
    for query in job.queries:
        if query.is_dir():
            raise DataError(f"{query}: a folder; pictures of the person were expected", hint=f"{query}/*.jpg")
        if not query.is_file():
            raise DataError(f"{query}: {say_missing(query)}; an image was expected", hint="name an image file")
        try:
            decode_rgb(read_encoded(query))
        except CorruptImageError as error:
            raise CorruptImageError(f"{query}: {error.message}", hint="name an image file") from error
    if job.page is not None:
        check_absent(job.page, force=job.force)


def check_links(source: str) -> None:
    """Refuses boxes that have to be linked where the tracker is missing.

    Raises:
        UsageError: it is not installed.
    """
    try:
        check_tracker()
    except UsageError as error:
        raise UsageError(
            f"{source}: its boxes have no person numbers, and linking them needs the package trackers, which is not "
            "installed (--no-track takes each crop alone)",
            hint=error.hint,
        ) from error


def encode_person(job: FindJob, footage: Mapping[str, Any], *, device: torch.device, progress: Progress) -> Person:
    """The person of the pictures, made in the same way as the features of the footage.

    Args:
        job: the search.
        footage: the record of those features; empty if nobody is in it.
        device: where the pictures' features are computed.
        progress: lines and bars.

    Raises:
        DataError: the network gives no direction for a picture.
    """
    encoder: Encoder | OnnxEncoder
    if runs_alone(job.checkpoint):
        exported = open_onnx(job.checkpoint, ForeignPixels())
        encoder, network = exported.encoder, exported.description
    else:
        encoder, checkpoint = open_encoder(job.checkpoint, device=device, precision=pick_precision("auto", device))
        network = describe_network(checkpoint.header)
    say_other_precision(job.features or Path(job.source), footage, encoder.precision, progress)
    images = FileImages([str(query) for query in job.queries])
    # Those of the footage are made by the default rule too.
    placed = choose_query_rows(encoder.cameras, len(images), gallery={})
    if placed is not None:
        progress.say(placed.line)
    cameras = None if placed is None else placed.rows
    flip = bool(footage.get("flip", False))
    vectors = extract_features(encoder, images, chunk=CHUNK, workers=0, flip=flip, progress=progress, cameras=cameras)
    units = UnitRows(vectors, np.arange(len(vectors)), device=device)
    broken = np.flatnonzero(~np.isfinite(units.norm) | (units.norm == 0))
    if len(broken):
        raise DataError(
            f"{job.queries[int(broken[0])]}: {job.checkpoint} gives a feature without a direction",
            hint="use another network: --run RUN",
        )
    return Person(units.unit(0, len(units)).cpu().numpy(), network, recorded_fingerprint(job.checkpoint))
