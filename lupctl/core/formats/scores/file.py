"""Scores, format 1: one number for each image of a pack, larger is better, and how they were made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.formats.record import created, open_recorded, write_record
from lupctl.core.workspace import SCORES_SUFFIX

SCORES_FORMAT: Final = 1
HINT: Final = "make it again: lupctl data score PACK --before RUN --after RUN --force"


@dataclass(frozen=True)
class Scores:
    """A score for each of the N images of a pack.

    The pack's fingerprint covers names and order, so that rows are enough.

    Args:
        score: (N) float64, larger is better; finite.
        record: the file's record, as `build_record` makes it; among its parents is the pack.
    """

    score: NDArray[np.float64]
    record: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def fingerprint(self) -> str:
        """That of the pack whose images were scored."""
        return str(self.record["parents"][f"pack:{self.record['dataset']}"])


def scores_path(pack: Path) -> Path:
    """Where the scores of a pack are kept: beside it.

    >>> scores_path(Path("packs/luperson")).as_posix(), scores_path(Path("packs/market1501.h5")).as_posix()
    ('packs/luperson.scores.h5', 'packs/market1501.scores.h5')
    """
    return pack.with_name(pack.name.removesuffix(".h5") + SCORES_SUFFIX)


def write_scores(path: Path, scores: Scores) -> None:
    """Write a complete scores file, or leave what was there; the same scores give the same bytes.

    Raises:
        ValueError: a score is not finite.
        DataError: the disk is full or refuses the write.
    """
    if not np.isfinite(scores.score).all():
        raise ValueError("a score is not finite")
    num_bytes = scores.score.size * 8 + 2 * len(json.dumps(scores.record))
    with created(path, num_bytes=num_bytes) as file:
        write_record(file, scores.record)
        file.create_dataset("score", data=scores.score.astype("<f8", copy=False), track_times=False)


def read_scores(path: Path) -> Scores:
    """The scores in a file.

    Raises:
        DataError: there is no such file.
        FormatError: not a scores file, of another format, cut short, or with a score that is not a finite number.
    """
    with open_recorded(path, "scores", SCORES_FORMAT, hint=HINT) as (file, record):
        found = file.get("score")
        if not isinstance(found, h5py.Dataset) or found.ndim != 1 or found.dtype.kind != "f":
            raise FormatError(f"{path}: has no column of scores, which every file of this kind has", hint=HINT)
        score = found[()].astype(np.float64, copy=False)
        parents, dataset = record.get("parents"), record.get("dataset")
        if not isinstance(parents, dict) or not isinstance(parents.get(f"pack:{dataset}"), str):
            raise FormatError(f"{path}: does not say which pack its scores are of", hint=HINT)
    if not np.isfinite(score).all():
        row = int(np.flatnonzero(~np.isfinite(score))[0])
        raise FormatError(f"{path}: the score of row {row} is {score[row]}; a number was expected", hint=HINT)
    return Scores(score, record)


def best_first(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N) rows from the best score to the worst; equal scores in the order of their rows, on every machine.

    >>> best_first(np.array([0.5, 0.9, 0.5, 1.0])).tolist()
    [3, 1, 0, 2]
    """
    order: NDArray[np.int64] = np.argsort(-score, kind="stable")
    return order
