"""Reads the boxes from a file of detections, in any of the formats."""

from pathlib import Path
from typing import assert_never

from lupctl.core.choices import DetectionFormat
from lupctl.core.data.video.boxes import Boxes
from lupctl.core.data.video.coco import read_coco
from lupctl.core.data.video.listing import video_name
from lupctl.core.data.video.mot import read_mot
from lupctl.core.data.video.pickles import read_pickle
from lupctl.core.errors import DataError


def read_detections(path: Path, kind: DetectionFormat) -> dict[str, Boxes]:
    """The boxes of one file, by video; "" if the file names no video.

    Raises:
        DataError: it cannot be read, or a pickle contains something other than data.
        FormatError: it has another format.
    """
    match kind:
        case "luperson" | "luperson-nl":
            found = read_pickle(path, kind)
        case "mot":
            return {"": read_mot(path)}
        case "coco":
            found = read_coco(path)
        case _:
            assert_never(kind)
    return {video_name(Path(name)) if name else "": boxes for name, boxes in found.items()}


def read_video_detections(path: Path, kind: DetectionFormat, video: str) -> Boxes:
    """The boxes of one video, from a file that belongs to it.

    Raises:
        DataError: the file contains several videos, and not this one.
    """
    found = read_detections(path, kind)
    if len(found) == 1:
        return next(iter(found.values()))
    if video in found:
        return found[video]
    raise DataError(f"{path}: contains {len(found):,} videos; {video} is not among them", hint="--detections FILE")


def first_frame_of(kind: DetectionFormat) -> int:
    """The number that a format gives to the first frame of a video.

    LUPerson's script seeks to `frame - 1` and LUPerson-NL's to `frame`; MOTChallenge counts from 1; `frame_id` of COCO
    files with videos counts from 0.
    """
    return {"luperson": 1, "luperson-nl": 0, "mot": 1, "coco": 0}[kind]
