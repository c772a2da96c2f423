"""Small videos whose frames tell their number, and detections for them in each format."""

import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# FFmpeg asks for it once, at the first video that a process reads or writes.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

HEIGHT, WIDTH = 96, 128
STEP = 14  # grey levels from one frame to the next; compression moves them by some

Entry = tuple[int, tuple[float, float, float, float]]  # frame as the format counts, and left, top, right, bottom


def draw_frame(number: int) -> NDArray[np.uint8]:
    """Frame `number` from 0: its grey level tells the number, a white square at the left top tells where is up."""
    frame = np.full((HEIGHT, WIDTH, 3), 20 + STEP * number, np.uint8)
    frame[:16, :16] = 255
    return frame


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The frame that a crop was cut from."""
    return round((float(np.median(pixels)) - 20) / STEP)


def write_video(path: Path, frames: int = 12) -> Path:
    """A video of so many frames; the ending says how: .avi is motion JPEG, .mp4 is MPEG-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, 10, (WIDTH, HEIGHT))
    for number in range(frames):
        writer.write(draw_frame(number))
    writer.release()
    return path


def write_pictures(folder: Path, numbers: Iterable[int], *, first: int = 1) -> Path:
    """A folder of pictures named by number, as MOTChallenge's img1."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:06d}.png"), draw_frame(number - first))
    return folder


def write_mot(path: Path, entries: Iterable[Entry], *, persons: Iterable[int] | None = None) -> Path:
    """MOTChallenge's text, ten columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = list(entries)
    ids = list(persons) if persons is not None else [1] * len(listed)
    lines = [
        f"{frame},{person},{left},{top},{right - left},{bottom - top},1,-1,-1,-1\n"
        for (frame, (left, top, right, bottom)), person in zip(listed, ids, strict=True)
    ]
    path.write_text("".join(lines))
    return path


def luperson_frames(entries: Iterable[Entry], **info: Any) -> dict[int, list[list[Any]]]:
    """What LUPerson's pickle of one video holds; `info` goes into every entry."""
    frames: dict[int, list[list[Any]]] = {}
    for frame, box in entries:
        listed = frames.setdefault(frame, [])
        listed.append([len(listed), {"bbox": np.array(box, np.float32), "conf": 0.9, **info}])
    return frames


def write_pickle(path: Path, content: object) -> Path:
    """A pickle as the collections publish them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> Path:
    """A JSON file."""
    path.write_text(json.dumps(content))
    return path
