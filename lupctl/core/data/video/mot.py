"""Boxes in MOTChallenge's text format."""

import warnings
from pathlib import Path

import numpy as np

from lupctl.core.data.video.boxes import Boxes, build_boxes
from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_text

FEWEST_COLUMNS = 6
# MOT16 and later have nine columns: ..., flag, class, visibility. Older files and trackers have ten, the last three
# of which are world coordinates.
CLASS_COLUMNS = 9
PEDESTRIAN = 1
HINT = "one line per box: frame,id,left,top,width,height,score,..."


def read_mot(path: Path) -> Boxes:
    """The boxes of one MOTChallenge text file: `frame,id,left,top,width,height,score,...`, frames from 1.

    Coordinates are used as they are. A negative person means unknown. From files with a class (nine columns) only
    pedestrians are kept; the flag of ground truth is stored as the score and drops nothing.

    Raises:
        DataError: it cannot be read.
        FormatError: a line is not numeric, or too short.
    """
    try:
        text = read_text(path, LIST_BYTES, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", hint=HINT) from error
    if not text.strip():
        return build_boxes([], [])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = np.loadtxt(text.splitlines(), delimiter=",", ndmin=2, comments=None)
    except (ValueError, UserWarning) as error:
        raise FormatError(f"{path}: not MOTChallenge text ({str(error).rstrip('.')})", hint=HINT) from error
    if rows.shape[1] < FEWEST_COLUMNS:
        raise FormatError(f"{path}: {rows.shape[1]} columns, at least {FEWEST_COLUMNS} were expected", hint=HINT)
    numbers = rows[:, :2]
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        bad = int(np.flatnonzero((numbers != np.round(numbers)).any(axis=1) | ~np.isfinite(numbers).all(axis=1))[0])
        raise FormatError(f"{path}: line {bad + 1}: frame and id must be whole numbers", hint=HINT)
    left_out = {}
    if rows.shape[1] == CLASS_COLUMNS:
        is_person = rows[:, 7] == PEDESTRIAN
        if not is_person.all():
            left_out["other class"] = int((~is_person).sum())
        rows = rows[is_person]
    box = rows[:, 2:6].copy()
    box[:, 2:] += box[:, :2]
    try:
        return build_boxes(
            rows[:, 0],
            box,
            score=rows[:, 6] if rows.shape[1] > FEWEST_COLUMNS else None,
            person=np.maximum(rows[:, 1], -1),
            left_out=left_out,
        )
    except ValueError as error:
        raise FormatError(f"{path}: {error}", hint=HINT) from error
