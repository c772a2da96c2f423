"""A loaded network: features of images and of the boxes of frames, and what they say about persons."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import DataError, UsageError
from lupctl.core.ranking.reports.model.find import FindLimits, thousandths
from lupctl.core.ranking.reranking.neighbours import find_nearest
from lupctl.core.ranking.retrieval.cameras import choose_query_rows
from lupctl.core.stages.embed.answers import Match, Nearest
from lupctl.core.stages.embed.boxes import cut_boxes, read_boxes
from lupctl.core.stages.embed.cameras import Cameras, choose_camera_rows
from lupctl.core.stages.embed.galleries import check_vectors, is_vectors, open_gallery, read_vectors
from lupctl.core.stages.embed.images import Images, is_image, list_images, read_pixels
from lupctl.core.stages.embed.opened import Opened
from lupctl.core.stages.embed.passes import Given, Unread, embed_images
from lupctl.core.system.examples import count_things

First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True)
class Threshold:
    """The limits of a report.

    Args:
        limits: as `lupctl find` uses them.
        record: of the features that the report was made from.
    """

    limits: FindLimits
    record: Mapping[str, Any]


class LoadedNetwork:
    """A network that gives features of images, the same as `lupctl dump`, divided by their length.

    `lupctl.load` makes it. Several threads may use one.

    Args:
        opened: the network.
        find_threshold: finds the report whose threshold `same` uses, or says what there is instead.
    """

    def __init__(self, opened: Opened, find_threshold: Callable[[], Threshold]) -> None:
        self._opened, self._find_threshold = opened, find_threshold
        self._threshold: Threshold | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._opened.path

    @property
    def dimension(self) -> int:
        """D, the length of a feature."""
        return self._opened.dimension

    @property
    def size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
        return self._opened.encoder.view.height, self._opened.encoder.view.width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._opened.encoder.device

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Names of the datasets that it was trained on, as far as its file says."""
        return self._opened.trained_on

    @property
    def cameras(self) -> tuple[int | str, ...]:
        """The cameras that it was trained on, as `embed` takes them; empty if it takes none."""
        table = self._opened.encoder.cameras
        return () if table is None else table.cameras

    def __repr__(self) -> str:
        height, width = self.size
        data = f", trained on {', '.join(self.trained_on)}" if self.trained_on else ""
        return (
            f"<{self._opened.description} of {self.path}: {height} x {width} to {self.dimension} numbers{data}; "
            f"on {self.device}>"
        )

    def embed(
        self, images: Images, boxes: Any = None, *, cameras: Cameras = None, flip: bool = False
    ) -> NDArray[np.float32]:
        """Features of images, or of the boxes of frames, in their order.

        Args:
            images: one image or any number of them: paths, encoded bytes, pictures of Pillow, arrays and tensors (H, W,
                3) of uint8, or of floating-point numbers from 0 to 1; RGB, grey, or with an alpha channel, which is
                dropped. Tensors may also be (3, H, W). Four dimensions are a batch.
            boxes: left, top, right, bottom in pixels of the frame, (n, 4), or detections that have them as `xyxy`; then
                `images` is a frame. Of several frames, one such for each. They are rounded and clipped at the edges.
            cameras: for a network that was trained with cameras: of all images or one for each, by their numbers in the
                dataset; None for an unknown one, `none` for no camera's row.
            flip: adds the feature of the mirrored image, as `lupctl dump --flip`.

        Returns:
            (N, D) float32 of length 1; (0, D) if there are no images.

        Raises:
            DataError: a file is missing, or does not decode (`CorruptImageError`); or the network gives no direction.
            UsageError: something is no image, a box is not finite or has no pixel in its frame, or there are no such
                cameras.
        """
        reads = _list_reads(images) if boxes is None else _list_crops(images, boxes)
        rows = choose_camera_rows(self._opened.encoder.cameras, cameras, network=str(self.path))
        return self._embed(zip(reads, repeat(rows)) if isinstance(rows, int) else pair(reads, rows, "cameras"), flip)

    def same(self, first: Any, second: Any) -> Match:
        """Whether two images show the same person, by the threshold of the network's report.

        Args:
            first, second: an image each, or its feature.

        Raises:
            DataError: there is no report with a threshold, or it is of another network; and as `embed`.
            UsageError: more or fewer images than two; and as `embed`.
        """
        if self._threshold is None:
            self._threshold = self._find_threshold()
        limits, record = self._threshold.limits, self._threshold.record
        vectors = np.concatenate([self._as_vectors(one, record, what="image") for one in (first, second)])
        if len(vectors) != 2:
            raise UsageError(
                f"{count_things(len(vectors), 'image')} in two arguments; one in each was expected",
                hint="net.same('a.jpg', 'b.jpg')",
            )
        units = check_vectors(vectors, torch.device("cpu"), what="image").unit(0, 2)
        similarity = float(units[0] @ units[1])
        return Match(
            is_same=thousandths(similarity) >= thousandths(limits.other),
            similarity=similarity,
            threshold=limits.other,
            false_matches=limits.false_matches,
            missed=limits.missed,
            report=limits.report,
            dataset=limits.dataset,
        )

    def nearest(self, queries: Any, gallery: Any, top: int = 20) -> Nearest:
        """The nearest images of a gallery by exact search, as `lupctl search` finds them; a query is not left out.

        Args:
            queries: Q features (Q, D), or images as for `embed`, without boxes.
            gallery: a features file, or G features (G, D).
            top: K, cut to G.

        Raises:
            DataError: the gallery does not exist, is damaged or empty, or was made by another network; and as `embed`.
            UsageError: vectors of another length, or `top` is less than 1; and as `embed`.
        """
        if top < 1:
            raise UsageError(f"top={top}: at least 1 was expected", hint="top=20")
        opened = open_gallery(self._opened, gallery, self.device)
        vectors = self._as_vectors(queries, opened.record, what="queries")
        units = check_vectors(vectors, self.device, what="queries")
        top = min(top, len(opened.units))
        cosine, row = np.zeros((0, top), np.float32), np.zeros((0, top), np.int64)
        if len(units):
            found = find_nearest(opened.units, units.unit(0, len(units)), top)
            cosine, row = found[0].cpu().numpy(), found[1].cpu().numpy()
        if opened.samples is None:
            return Nearest(cosine, row)
        samples = opened.samples
        names = np.array([samples.name[at] for at in row.ravel().tolist()], np.object_).reshape(row.shape)
        return Nearest(cosine, row, names, samples.person[row].astype(np.int64), samples.camera[row].astype(np.int64))

    def _as_vectors(self, given: Any, record: Mapping[str, Any], *, what: str) -> NDArray[np.float32]:
        """Features as they are; of images, made as those of a record: mirrored or not, with cameras or without."""
        if is_vectors(given):
            return read_vectors(given, self.dimension, what=what)
        placed = choose_query_rows(self._opened.encoder.cameras, 1, gallery=record)
        row = 0 if placed is None else int(placed.rows[0])
        return self._embed(zip(_list_reads(given), repeat(row)), bool(record.get("flip", False)))

    def _embed(self, images: Iterator[Given], flip: bool) -> NDArray[np.float32]:
        if flip and self._opened.is_unit:
            raise UsageError(
                f"{self.path}: an exported network, whose features of mirrored images cannot be added as in a dump",
                hint="load the checkpoint",
            )
        found = embed_images(self._opened.encoder, images, flip=flip)
        if not len(found):
            return np.zeros((0, self.dimension), np.float32)
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        broken = np.flatnonzero(~np.isfinite(norm) | (norm == 0))
        if len(broken):
            raise DataError(
                f"image {int(broken[0])}: {self.path} gives a feature without a direction", hint="load another network"
            )
        return np.asarray(found / norm)


def _list_reads(images: Images) -> Iterator[Unread]:
    for number, image in enumerate(list_images(images)):
        yield Unread(partial(read_pixels, image, number), image.size if isinstance(image, np.ndarray) else 0)


def _list_crops(frames: Images, boxes: Any) -> Iterator[Unread]:
    each = [boxes] if is_image(frames) else boxes
    if not isinstance(each, Iterable):
        raise UsageError(
            f"boxes={type(boxes).__name__}: of several frames, a list of the boxes of each was expected",
            hint="net.embed(frames, boxes=[boxes_of_first, boxes_of_second])",
        )
    for number, (frame, own) in enumerate(pair(list_images(frames), each, "boxes")):
        for crop in cut_boxes(read_pixels(frame, number), read_boxes(own)):
            yield Unread(partial(np.asarray, crop), crop.size)


def pair(images: Iterable[First], others: Iterable[Second], what: str) -> Iterator[tuple[First, Second]]:
    """Each image with what belongs to it.

    Raises:
        UsageError: there are more or fewer of these than images.
    """
    left, waiting = iter(others), iter(images)
    nothing: Any = object()
    for number, image in enumerate(waiting):
        other = next(left, nothing)
        if other is nothing:
            raise UsageError(f"{what}: {number} for more images; one for each was expected", hint=f"{what}=[…]")
        yield image, other
    if next(left, nothing) is not nothing:
        raise UsageError(f"{what}: more than images; one for each was expected", hint=f"{what}=[…]")
