"""Extra columns of a pack of crops: which frame of which video each crop was cut from, and where."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.formats.pack.samples import GROUP
from lupctl.core.formats.record import DAMAGE

COLUMNS = ("frame", "video", "score", "box")
ROW_BYTES = 8 + 4 + 4 + 4 * 4


@dataclass(frozen=True)
class CropFacts:
    """Where one crop was cut.

    Args:
        frame: number of the frame, as the detections count frames.
        video: number of the video in the sorted list of all videos, from 1.
        score: of the detector; NaN unknown.
        box: left, top, right and bottom in pixels as detected, before rounding and clipping.
    """

    frame: int
    video: int
    score: float
    box: tuple[float, float, float, float]


UNKNOWN = CropFacts(-1, -1, float("nan"), (float("nan"),) * 4)


@dataclass(frozen=True)
class CropColumns:
    """N crops as parallel columns; an image that is not a crop has -1 and NaN.

    Args:
        frame: (N) int64.
        video: (N) int32.
        score: (N) float32.
        box: (N, 4) float32.
    """

    frame: NDArray[np.int64]
    video: NDArray[np.int32]
    score: NDArray[np.float32]
    box: NDArray[np.float32]

    def __getitem__(self, row: int) -> CropFacts:
        left, top, right, bottom = self.box[row].tolist()
        return CropFacts(int(self.frame[row]), int(self.video[row]), float(self.score[row]), (left, top, right, bottom))


class CropColumnsWriter:
    """Collects the columns of one file; nothing is written if no image is a crop.

    Arrays: a file may have millions of rows, and a Python object takes 32 bytes or more.
    """

    def __init__(self) -> None:
        self._frames = array("q")
        self._videos = array("i")
        self._scores = array("f")
        self._boxes = array("f")  # four numbers per crop
        self._unknown = 0  # images since the last crop that are not crops; most packs have no crops at all

    @property
    def num_bytes(self) -> int:
        """Bytes that the columns will take."""
        return (len(self._frames) + self._unknown) * ROW_BYTES if self._frames else 0

    def add(self, crop: CropFacts | None) -> None:
        """Append one image."""
        if crop is None:
            self._unknown += 1
            return
        self._fill()
        self._append(crop, 1)

    def add_unknown(self, count: int) -> None:
        """Append `count` images that are not crops."""
        self._unknown += count

    def write(self, file: h5py.File) -> None:
        """Write `samples/frame`, `video`, `score` and `box` into a file that already has its samples."""
        if not self._frames:
            return
        self._fill()
        for column, values in (
            ("frame", np.array(self._frames, "<i8")),
            ("video", np.array(self._videos, "<i4")),
            ("score", np.array(self._scores, "<f4")),
            ("box", np.array(self._boxes, "<f4").reshape(-1, 4)),
        ):
            file[GROUP].create_dataset(column, data=values, track_times=False)

    def _fill(self) -> None:
        self._append(UNKNOWN, self._unknown)
        self._unknown = 0

    def _append(self, crop: CropFacts, count: int) -> None:
        self._frames.extend([crop.frame] * count)
        self._videos.extend([crop.video] * count)
        self._scores.extend([crop.score] * count)
        self._boxes.extend(crop.box * count)


def _read_columns(shard: Path, *, hint: str) -> list[NDArray[Any]] | None:
    with h5py.File(shard, "r", locking=False) as file:
        group = file[GROUP]
        found = [column for column in COLUMNS if column in group]
        if not found:
            return None
        length = group["name"].shape[0]
        if len(found) < len(COLUMNS) or any(group[column].shape[0] != length for column in found):
            raise FormatError(f"{shard}: {GROUP}/{', '.join(found)} do not cover its {length} images", hint=hint)
        return [group[column][()] for column in COLUMNS]


def read_crops(path: Path, *, hint: str) -> CropColumns | None:
    """The columns of a pack, a file or a folder of shards; None if it has no crops from videos.

    Raises:
        FormatError: some columns are missing, they differ in length, or the file is damaged.
    """
    parts = []
    for shard in sorted(path.glob("*.h5")) if path.is_dir() else [path]:
        try:
            found = _read_columns(shard, hint=hint)
        except DAMAGE as error:
            raise FormatError(f"{shard}: damaged ({error})", hint=hint) from error
        if found is None:
            return None
        parts.append(found)
    frame, video, score, box = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return CropColumns(
        frame.astype(np.int64), video.astype(np.int32), score.astype(np.float32), box.astype(np.float32).reshape(-1, 4)
    )
