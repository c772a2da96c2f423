"""Frames of a video in order: each is passed once, and only the requested ones are decoded to pixels."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
from lupctl.core.data.video.boxes import LAST_DIGITS, MOST_NUMBER
from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.system.disk.reading import check_regular

HINT = "get the video again; lupctl data build leaves it out with a message"
Picture = NDArray[np.uint8]


class Frames(Protocol):
    """An open video.

    Attributes:
        height: of its frames, in pixels.
        width: of its frames, in pixels.
        promised: number of frames it claims to have; 0 if it does not say.
        first_name: number in the name of its first picture file, 0 or 1; None for a video file.
        passed: number of frames passed so far.
        rate: frames per second; 0 if unknown.
    """

    height: int
    width: int
    promised: int
    first_name: int | None
    passed: int
    rate: float

    def pictures(self, wanted: Iterable[int]) -> Iterator[tuple[int, Picture | None]]:
        """The requested frames in order, BGR (H, W, 3); None for one that does not decode.

        It ends early if the video does. May be called only once.

        Args:
            wanted: ascending frame numbers from 0.
        """

    def skip(self, count: int) -> bool:
        """Passes `count` frames; False if the video ended before that."""

    def close(self) -> None:
        """Closes the file."""


def open_frames(path: Path) -> "VideoFile | PictureFolder":
    """Opens a video file or a folder of pictures.

    Raises:
        DataError: it is not a video, or has no frame.
    """
    return PictureFolder(path) if path.is_dir() else VideoFile(path)


class VideoFile:
    """A video read by FFmpeg in one thread: otherwise the pixels of a damaged stream would depend on the threads.

    Args:
        path: the file.

    Raises:
        DataError: it does not open, or has no frame.
    """

    first_name: int | None = None

    def __init__(self, path: Path) -> None:
        # OpenCV and FFmpeg print their own messages about files they refuse; ours name the file.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            check_regular(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened as a video ({error.strerror})", hint=HINT) from error
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise DataError(f"{path}: cannot be opened as a video", hint=HINT)
        self.passed = 0
        self.rate = max(float(self._capture.get(cv2.CAP_PROP_FPS)), 0.0)
        self.promised = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        has_frame, first = self._capture.read()
        if not has_frame:
            self._capture.release()
            raise DataError(f"{path}: opens, but no frame of it decodes", hint=HINT)
        self._first = np.asarray(first, np.uint8)
        self.height, self.width = first.shape[:2]

    def pictures(self, wanted: Iterable[int]) -> Iterator[tuple[int, Picture | None]]:
        """See `Frames.pictures`."""
        for number in wanted:
            while self.passed <= number:
                # Frame 0 has already been read, for the size.
                if self.passed > 0 and not self._capture.grab():
                    return
                self.passed += 1
            if number == 0:
                yield 0, self._first
                continue
            has_frame, picture = self._capture.retrieve()
            yield number, np.asarray(picture, np.uint8) if has_frame else None

    def skip(self, count: int) -> bool:
        """See `Frames.skip`."""
        for _ in range(count):
            if not self._capture.grab():
                return False
            self.passed += 1
        return True

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()


class PictureFolder:
    """A folder of pictures, one per frame; the digits at the end of a name are its number.

    If the smallest number is not 0, frames count from 1, as in MOTChallenge; a missing number is a missing frame. If
    the names do not all have distinct numbers, their sorted order counts.

    Args:
        path: the folder.

    Raises:
        DataError: its first picture does not decode.
    """

    rate: float = 0.0

    def __init__(self, path: Path) -> None:
        try:
            self._paths, first_name = _number_pictures(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be listed ({error.strerror})", hint=HINT) from error
        self.first_name: int | None = first_name
        self.passed = 0
        self.promised = max(self._paths) + 1
        first = self._paths[min(self._paths)]
        try:
            picture = decode_rgb(read_encoded(first))
        except (OSError, CorruptImageError) as error:
            raise DataError(f"{first}: {error}", hint=HINT) from error
        self.height, self.width = picture.shape[:2]

    def pictures(self, wanted: Iterable[int]) -> Iterator[tuple[int, Picture | None]]:
        """See `Frames.pictures`; only the files of requested frames are read."""
        for number in wanted:
            if number >= self.promised:
                self.passed = self.promised
                return
            self.passed = number + 1
            yield number, self._read(number)

    def _read(self, number: int) -> Picture | None:
        try:
            picture = decode_rgb(read_encoded(self._paths[number]))
        except (KeyError, OSError, CorruptImageError):
            return None
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)

    def skip(self, count: int) -> bool:
        """See `Frames.skip`."""
        self.passed = min(self.passed + count, self.promised)
        return self.passed < self.promised

    def close(self) -> None:
        """Does nothing: no file stays open."""


def _number_pictures(folder: Path) -> tuple[dict[int, Path], int]:
    names = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    found = [LAST_DIGITS.search(path.stem) for path in names]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) < len(names) or len(set(numbers)) < len(names) or max(numbers, default=0) >= MOST_NUMBER:
        return dict(enumerate(names)), 0
    first = 0 if min(numbers) == 0 else 1
    return {number - first: path for number, path in zip(numbers, names, strict=True)}, first
