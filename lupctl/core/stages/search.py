"""Search for the images of a gallery that are nearest to given pictures."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import SearchIndex
from lupctl.core.errors import CorruptImageError, DataError, UsageError
from lupctl.core.formats.features.file import FeaturesHead
from lupctl.core.formats.features.foreign import read_any_features, read_any_head
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.weights.runtimes.open import runs_alone
from lupctl.core.formats.weights.settings import read_settings
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reports.build.images import Images, open_images
from lupctl.core.ranking.reports.page.sheet import Cell, draw_sheet
from lupctl.core.ranking.reranking.neighbours import find_nearest
from lupctl.core.ranking.retrieval.cameras import choose_query_rows
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features, open_encoder
from lupctl.core.ranking.retrieval.inputs import SHOWN, network_of
from lupctl.core.ranking.retrieval.ivf import index_path, is_current, open_index, search_index
from lupctl.core.ranking.retrieval.onnx.encoder import OnnxEncoder
from lupctl.core.ranking.retrieval.onnx.open import open_onnx
from lupctl.core.ranking.retrieval.onnx.recorded import recorded_pixels
from lupctl.core.ranking.retrieval.score import check_directions
from lupctl.core.ranking.retrieval.warnings import say_other_precision
from lupctl.core.system.disk.atomic import atomic_path, check_absent, file_fingerprint
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.examples import name_some
from lupctl.core.system.jobs.precision import pick_precision
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import FileImages

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CHUNK = 64
# Distances that one image has from itself, computed twice: up to 1e-3 where one of the two was rounded to bfloat16.
ITSELF = 2e-3
# Results that are looked at beyond those wanted, since copies of the query are not among the wanted ones.
SPARE = 4


@dataclass(frozen=True)
class SearchJob:
    """The settings of one search.

    Args:
        gallery: a features file; all of its images are searched.
        queries: image files.
        checkpoint: the network that made the features.
        top: results per query.
        index: `exact` compares with every image; `ivf` with those in the nearest lists of a stored faiss index.
        images: the pack or folder with the gallery's images, for the sheet, and to recognise a query among them.
        sheet: the picture to write.
        force: overwrite an existing sheet.
    """

    gallery: Path
    queries: tuple[Path, ...]
    checkpoint: Path
    top: int = 20
    index: SearchIndex = "exact"
    images: Path | None = None
    sheet: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Hit:
    """One result: an image of the gallery and its distance (1 - cos) to the query; person and camera as in the file."""

    rank: int
    name: str
    person: int
    camera: int
    distance: float


@dataclass(frozen=True)
class Found:
    """A query and its results, nearest first.

    `left_out` names the gallery's images that are the query itself; they are not among the results.
    """

    query: Path
    hits: tuple[Hit, ...]
    left_out: tuple[str, ...] = ()


def plan_search(job: SearchJob) -> dict[str, Any]:
    """What a search would do; nothing is computed.

    Raises:
        DataError, UsageError: as `search`, except for errors that only the vectors or the images reveal.
    """
    _check_files(job)
    head = read_any_head(job.gallery)
    plan: dict[str, Any] = {
        "gallery": str(job.gallery),
        "images": head.shape[0],
        "dimension": head.shape[1],
        "queries": [str(query) for query in job.queries],
        "checkpoint": str(job.checkpoint),
        "index": job.index,
    }
    if job.index == "ivf":
        path = index_path(job.gallery)
        plan["index_file"] = f"{path} ({'there' if is_current(path, file_fingerprint(job.gallery)) else 'to be built'})"
    return {**plan, **({} if job.sheet is None else {"sheet": str(job.sheet)})}


def search(job: SearchJob, device: torch.device, progress: Progress) -> list[Found]:
    """Search, and draw the sheet if one is requested.

    Raises:
        DataError: a file is missing or damaged, or the features are empty, not finite, or of another network.
        UsageError: the sheet exists, or has an unknown ending.
    """
    _check_files(job)
    head = read_any_head(job.gallery)
    if not len(head.samples):
        raise DataError(f"{job.gallery}: has no images", hint="lupctl dump RUN DATASET --force")
    queries = _encode(job, head, device, progress)
    units = UnitRows(queries, np.arange(len(queries)), device=device)
    cosine, row = _nearest(job, units.unit(0, len(units)), device, progress)
    # Without a sheet nobody asked for the images, so nothing is said where they cannot be had.
    images = open_images(job.images, head.record, progress if job.sheet else Progress(quiet=True))
    found = [
        _leave_itself_out(Found(query, _hits(head.samples, cosine[at], row[at])), images, top=job.top)
        for at, query in enumerate(job.queries)
    ]
    _say_left_out(found, progress)
    if job.sheet is not None:
        write_sheet(job.sheet, found, images)
    return found


def write_sheet(path: Path, found: list[Found], images: Images) -> None:
    """Draw one row of pictures per query: the query, then its results with rank and distance, person and camera.

    Raises:
        DataError: the disk is full or refuses the write.
    """

    def cell(encoded: bytes | None, *lines: str) -> Cell:
        try:
            return (None if encoded is None else decode_rgb(encoded)), lines
        except CorruptImageError:
            return None, lines

    rows = [
        (
            cell(read_encoded(one.query), "query"),
            [
                cell(images(hit.name), f"{hit.rank}  {hit.distance:.3f}", f"{hit.person} c{hit.camera}")
                for hit in one.hits
            ],
        )
        for one in found
    ]
    done, encoded = cv2.imencode(path.suffix.lower(), cv2.cvtColor(draw_sheet(rows), cv2.COLOR_RGB2BGR))
    assert done, "OpenCV encodes every 8-bit RGB image"
    with atomic_path(path) as partial:
        partial.write_bytes(encoded.tobytes())


def _check_files(job: SearchJob) -> None:
    for query in job.queries:
        if not query.is_file():
            raise DataError(f"{query}: {say_missing(query)}; an image was expected", hint=f"ls {query.parent}")
    if job.sheet is not None:
        if job.sheet.suffix.lower() not in SHEET_SUFFIXES:
            raise UsageError(
                f"{job.sheet}: the name of a sheet must end in one of {' '.join(SHEET_SUFFIXES)}",
                hint=f"--sheet {job.sheet}.png",
            )
        check_absent(job.sheet, force=job.force, option="--sheet")


def _open_network(
    job: SearchJob, head: FeaturesHead, device: torch.device, progress: Progress
) -> Encoder | OnnxEncoder:
    if runs_alone(job.checkpoint):
        found = open_onnx(job.checkpoint, recorded_pixels(job.checkpoint, head.record))
        _check_network(job, head, found.fingerprint, progress)
        return found.encoder
    _check_network(job, head, file_fingerprint(job.checkpoint), progress)
    precision, settings = pick_precision("auto", device), read_settings(head.record)
    return open_encoder(job.checkpoint, device=device, precision=precision, settings=settings)[0]


def _check_network(job: SearchJob, head: FeaturesHead, found: str, progress: Progress) -> None:
    wanted = network_of(head.record)
    if wanted is None:
        progress.warn(f"{job.gallery}: names no network, so it is unknown whether {job.checkpoint} made these features")
    elif wanted != found:
        raise DataError(
            f"{job.gallery}: made by checkpoint {wanted[:SHOWN]}, but {job.checkpoint} is {found[:SHOWN]}; distances "
            "between features of two networks mean nothing",
            hint="name the checkpoint that made the gallery: --from RUN",
        )


def _encode(job: SearchJob, head: FeaturesHead, device: torch.device, progress: Progress) -> NDArray[np.float32]:
    """Features of the queries, made in the same way as those of the gallery."""
    encoder = _open_network(job, head, device, progress)
    say_other_precision(job.gallery, head.record, encoder.precision, progress)
    images = FileImages([str(query) for query in job.queries])
    flip = bool(head.record.get("flip", False))
    placed = choose_query_rows(encoder.cameras, len(images), gallery=head.record)
    if placed is not None:
        progress.say(placed.line)
    cameras = None if placed is None else placed.rows
    vectors = extract_features(encoder, images, chunk=CHUNK, workers=0, flip=flip, progress=progress, cameras=cameras)
    if vectors.shape[1] != head.shape[1]:
        raise DataError(
            f"{job.gallery}: {head.shape[1]} values per image, but {job.checkpoint} gives {vectors.shape[1]}",
            hint="name the checkpoint that made the gallery: --from RUN",
        )
    return vectors


def _nearest(
    job: SearchJob, units: Tensor, device: torch.device, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and rows of the gallery's nearest images, (Q, top) each."""

    def gallery() -> UnitRows:
        features = read_any_features(job.gallery)
        check_directions(features.features, features.samples, device=device)
        return UnitRows(features.features, np.arange(len(features)), device=device)

    if job.index == "exact":
        cosine, row = find_nearest(gallery(), units, job.top + SPARE)
        return cosine.cpu().numpy(), row.cpu().numpy()
    index = open_index(job.gallery, gallery, progress=progress)
    return search_index(index, units.cpu().numpy(), job.top + SPARE, device=device)


def _leave_itself_out(found: Found, images: Images, *, top: int) -> Found:
    """The results without the query itself: the same bytes, or the same name where the bytes are not available."""
    left_out = []
    for hit in found.hits:
        if hit.distance <= ITSELF:
            encoded = images(hit.name)
            named_alike = PurePath(hit.name).name == found.query.name
            if named_alike if encoded is None else encoded == read_encoded(found.query):
                left_out.append(hit.name)
    kept = [hit for hit in found.hits if hit.name not in left_out][:top]
    hits = tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1))
    return Found(found.query, hits, tuple(left_out))


def _say_left_out(found: list[Found], progress: Progress) -> None:
    """Says in one line which queries are themselves in the gallery."""
    own = [f"{one.query} ({', '.join(one.left_out)})" for one in found if one.left_out]
    if own:
        many = "this query is" if len(found) == 1 else f"{len(own):,} of {len(found):,} queries are"
        progress.say(f"{many} in the gallery too, and left out of the results: {name_some(own)}")


def _hits(samples: Samples, cosine: NDArray[np.float32], row: NDArray[np.int64]) -> tuple[Hit, ...]:
    """The results of one query; the probed lists may have fewer images than requested (row -1)."""
    return tuple(
        Hit(
            rank=rank,
            name=samples.name[at],
            person=int(samples.person[at]),
            camera=int(samples.camera[at]),
            distance=max(0.0, 1 - value),
        )
        for rank, (value, at) in enumerate(zip(cosine.tolist(), row.tolist(), strict=True), start=1)
        if at >= 0
    )
