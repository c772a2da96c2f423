"""Cuts encoded crops from frames and boxes."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.video.boxes import Boxes, clip_boxes, round_boxes
from lupctl.core.data.video.frames import Frames
from lupctl.core.formats.images.codec import JPEG_QUALITY


@dataclass(frozen=True)
class Crop:
    """The crop of one person.

    Args:
        row: of its box.
        encoded: JPEG, quality 95.
        height: in pixels.
        width: in pixels.
    """

    row: int
    encoded: bytes
    height: int
    width: int


@dataclass(frozen=True)
class Missed:
    """A box without a crop.

    Args:
        row: of the box.
        reason: `outside`: no part of it is inside the frame; `unreadable`: the frame does not decode.
    """

    row: int
    reason: str


def cut_crops(frames: Frames, boxes: Boxes, numbers: NDArray[np.int64]) -> Iterator[list[Crop | Missed]]:
    """The crops of each frame with boxes, in order; frames after the end of the video give nothing.

    Rows `y1:y2` and columns `x1:x2` of the rounded box are cut, as published, clipped at the frame's edges.

    Args:
        frames: the open video; it is read through once.
        boxes: sorted by frame.
        numbers: (N) frame number of each box, from 0.
    """
    if len(boxes) == 0:
        return
    corners = round_boxes(boxes.box)
    wanted, starts = np.unique(numbers, return_index=True)
    ends = np.append(starts[1:], len(numbers))
    rows_of = {int(number): range(start, end) for number, start, end in zip(wanted, starts, ends, strict=True)}
    for number, picture in frames.pictures([int(number) for number in wanted]):
        rows = rows_of[number]
        if picture is None:
            yield [Missed(row, "unreadable") for row in rows]
            continue
        height, width = picture.shape[:2]
        inside = clip_boxes(corners[rows.start : rows.stop], height=height, width=width)
        yield [_cut(picture, row, corner) for row, corner in zip(rows, inside.tolist(), strict=True)]


def _cut(picture: NDArray[np.uint8], row: int, corners: list[int]) -> Crop | Missed:
    left, top, right, bottom = corners
    if right <= left or bottom <= top:
        return Missed(row, "outside")
    done, encoded = cv2.imencode(".jpg", picture[top:bottom, left:right], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "OpenCV encodes every 8-bit image as JPEG"
    return Crop(row, encoded.tobytes(), bottom - top, right - left)
