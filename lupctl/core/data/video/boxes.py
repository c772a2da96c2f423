"""Person boxes of one video, and the rules by which they are turned into pixels."""

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_KEYPOINTS = 17
UNKNOWN_PERSON = -1
# Up to 19 digits, such as the nanoseconds of a clock.
LAST_DIGITS: Final = re.compile(r"(?<!\d)(\d{1,19})$")
MOST_NUMBER: Final = 2**63


@dataclass(frozen=True)
class Boxes:
    """N detections of one video in parallel columns, sorted by frame.

    Args:
        frame: (N) int64, the frame number as the file counts.
        index: (N) int64, number of the box within its frame; used only for naming.
        box: (N, 4) float64, left, top, right, bottom in pixels; right and bottom are exclusive.
        score: (N) float32; NaN if unknown.
        person: (N) int64, number of the person; -1 if unknown.
        keypoints: (N, 17) float32, scores of the COCO keypoints; NaN if unknown.
        left_out: number of boxes in the file that are not of persons, by reason.
        named_frames: whether `frame` is the number in a picture file's name.
    """

    frame: NDArray[np.int64]
    index: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float32]
    person: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    left_out: dict[str, int] = field(default_factory=dict)
    named_frames: bool = False

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, rows: ArrayLike) -> "Boxes":
        """The boxes at `rows` (integers, or N booleans), in that order."""
        kept = np.arange(len(self))[np.asarray(rows)] if len(self) else np.zeros(0, np.int64)
        return Boxes(
            frame=self.frame[kept],
            index=self.index[kept],
            box=self.box[kept],
            score=self.score[kept],
            person=self.person[kept],
            keypoints=self.keypoints[kept],
            left_out=self.left_out,
            named_frames=self.named_frames,
        )


def build_boxes(
    frame: ArrayLike,
    box: ArrayLike,
    *,
    index: ArrayLike | None = None,
    score: ArrayLike | None = None,
    person: ArrayLike | None = None,
    keypoints: ArrayLike | None = None,
    left_out: dict[str, int] | None = None,
    named_frames: bool = False,
) -> Boxes:
    """Boxes from columns in any order of frames; without `index` they are numbered from 0 within each frame.

    Raises:
        ValueError: a frame, an index or a person that is no whole number of 64 bits, or a column whose length
            differs from the others'.
    """
    frames = _whole(frame, "frame").reshape(-1)
    count = len(frames)
    order = np.argsort(frames, kind="stable")

    def column(values: ArrayLike | None, kind: type[np.generic], missing: float, *width: int) -> NDArray[np.generic]:
        if values is None:
            return np.full((count, *width), missing, kind)
        with np.errstate(over="ignore"):  # a score beyond float32 is infinite
            return np.asarray(values, kind).reshape(count, *width)[order]

    sorted_frames = frames[order]
    if index is None:
        starts = np.searchsorted(sorted_frames, sorted_frames, side="left")
        numbers: NDArray[np.int64] = np.arange(count) - starts
    else:
        numbers = column(_whole(index, "index"), np.int64, 0).astype(np.int64)
    return Boxes(
        frame=sorted_frames,
        index=numbers,
        box=column(box, np.float64, np.nan, 4).astype(np.float64),
        score=column(score, np.float32, np.nan).astype(np.float32),
        person=column(None if person is None else _whole(person, "person"), np.int64, UNKNOWN_PERSON).astype(np.int64),
        keypoints=column(keypoints, np.float32, np.nan, NUM_KEYPOINTS).astype(np.float32),
        left_out=dict(left_out or {}),
        named_frames=named_frames,
    )


def _whole(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Numbers that a file gives as whole ones; NaN, infinity, fractions and what int64 cannot hold are refused."""
    found = np.asarray(values)
    numbers = found if found.dtype.kind in "iu" else np.asarray(values, np.float64)
    if found.dtype.kind != "i" and (not (np.abs(numbers) < MOST_NUMBER).all() or (numbers != np.round(numbers)).any()):
        raise ValueError(f"a {what} that is no whole number of 64 bits")
    return numbers.astype(np.int64)


def round_boxes(box: NDArray[np.float64]) -> NDArray[np.int64]:
    """Boxes (N, 4) in whole pixels, by LUPerson's published rule: rounded half to even, then cast to integer.

    >>> round_boxes(np.array([[0.5, 1.5, 2.5, 3.49]])).tolist()
    [[0, 2, 2, 3]]
    """
    return np.asarray(np.round(box).astype(np.int64))


def clip_boxes(rounded: NDArray[np.int64], *, height: int, width: int) -> NDArray[np.int64]:
    """Boxes (N, 4) of whole pixels, clipped at the frame's edges.

    The published scripts do not clip: there, a negative coordinate counts from the other edge and cuts another region.
    """
    return np.clip(rounded, 0, np.array([width, height, width, height]))


def are_inside(box: NDArray[np.float64], *, height: int, width: int) -> NDArray[np.bool_]:
    """Which boxes (N, 4) are entirely inside the frame, before rounding."""
    low = (box[:, :2] >= 0).all(axis=1)
    return np.asarray(low & (box[:, 2] <= width) & (box[:, 3] <= height))
