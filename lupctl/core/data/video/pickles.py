"""Boxes in the pickles of LUPerson and LUPerson-NL."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lupctl.core.data.video.boxes import NUM_KEYPOINTS, UNKNOWN_PERSON, Boxes, build_boxes
from lupctl.core.errors import FormatError
from lupctl.core.system.disk.pickles import load_arrays

HINT = "expected {frame: [[number, {'bbox': 4 numbers, ...}], ...]}, as LUPerson and LUPerson-NL publish it"
Kind = Literal["luperson", "luperson-nl"]


def read_pickle(path: Path, kind: Kind) -> dict[str, Boxes]:
    """The boxes of one pickle, by video; "" for a pickle of one video.

    Nothing in the file is executed. A pickle whose keys are strings contains many videos, `{video: {frame: [...]}}`.

    Args:
        path: the file.
        kind: LUPerson's boxes have no `pid` and LUPerson-NL's have one; their frames start at 1 and at 0, so confusing
            the two shifts every box.

    Raises:
        DataError: it cannot be read, or contains something other than data.
        FormatError: it has a different structure, or is from the other collection.
    """
    content = load_arrays(path)
    if not isinstance(content, dict):
        raise FormatError(f"{path}: contains a {type(content).__name__}; a dict was expected", hint=HINT)
    if content and all(isinstance(key, str) for key in content):
        return {video: _read_video(path, video, frames, kind) for video, frames in content.items()}
    return {"": _read_video(path, "", content, kind)}


def _read_video(path: Path, video: str, frames: Any, kind: Kind) -> Boxes:
    where = f"{path}: {video}: " if video else f"{path}: "
    if not isinstance(frames, dict):
        raise FormatError(f"{where}contains a {type(frames).__name__}; a dict by frame was expected", hint=HINT)
    columns: dict[str, list[Any]] = {name: [] for name in ("frame", "index", "box", "score", "person", "keypoints")}
    for frame, entries in frames.items():
        try:
            for index, info in entries:
                if ("pid" in info) != (kind == "luperson-nl"):
                    raise _other_collection(f"{where}frame {reprlib.repr(frame)}", kind)
                _add_row(columns, int(frame), int(index), info)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise FormatError(
                f"{where}frame {reprlib.repr(frame)} has an unexpected structure ({error})", hint=HINT
            ) from error
    try:
        return build_boxes(
            columns["frame"],
            columns["box"],
            index=columns["index"],
            score=columns["score"],
            person=columns["person"],
            keypoints=columns["keypoints"],
        )
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{where}{error}", hint=HINT) from error


def _add_row(columns: dict[str, list[Any]], frame: int, index: int, info: Mapping[str, Any]) -> None:
    box = np.asarray(info["bbox"], np.float64).reshape(-1)
    if len(box) != 4:
        raise ValueError(f"a bbox of {len(box)} numbers")
    keypoints = np.full(NUM_KEYPOINTS, np.nan)
    if info.get("prob") is not None:
        keypoints = np.asarray(info["prob"], np.float64).reshape(-1)
        if len(keypoints) != NUM_KEYPOINTS:
            raise ValueError(f"prob of {len(keypoints)} keypoints")
    columns["frame"].append(frame)
    columns["index"].append(index)
    columns["box"].append(box)
    columns["score"].append(float(info.get("conf", np.nan)))
    columns["person"].append(int(info.get("pid", UNKNOWN_PERSON)))
    columns["keypoints"].append(keypoints)


def _other_collection(where: str, kind: Kind) -> FormatError:
    if kind == "luperson":
        return FormatError(
            f"{where}: has a pid; this is LUPerson-NL, whose frames start at 0", hint="--format luperson-nl"
        )
    return FormatError(f"{where}: has no pid; this is LUPerson, whose frames start at 1", hint="--format luperson")
