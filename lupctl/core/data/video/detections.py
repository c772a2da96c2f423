"""From a file of detections to boxes, whatever its format."""

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
    """The boxes of one file, by video; "" is the video of a file that names none.

    Raises:
        DataError: it cannot be read, or a pickle asks for something else than data.
        FormatError: it is of another format.
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
    """The boxes of one video from a file that was found to belong to it.

    Raises:
        DataError: the file holds several videos, and not this one.
    """
    found = read_detections(path, kind)
    if len(found) == 1:
        return next(iter(found.values()))
    if video in found:
        return found[video]
    raise DataError(f"{path}: holds {len(found):,} videos, {video} is not among them", hint="--detections FILE")


def first_frame_of(kind: DetectionFormat) -> int:
    """The number that a format gives to a video's first frame.

    LUPerson's script seeks to `frame - 1` and LUPerson-NL's to `frame`; MOTChallenge counts from 1; `frame_id` of COCO
    files with videos counts from 0.
    """
    return {"luperson": 1, "luperson-nl": 0, "mot": 1, "coco": 0}[kind]
