"""How images are prepared for a network's file where nobody says it now: by its own record, or by that of features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.onnx import RECORD_KEY, parse_record
from lupctl.core.formats.weights.runtimes.images import find_image_input
from lupctl.core.formats.weights.runtimes.open import exported_fingerprint, open_session, runs_alone
from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels
from lupctl.core.system.disk.atomic import file_fingerprint


def recorded_pixels(path: Path, features: Mapping[str, Any]) -> ForeignPixels:
    """How images are prepared for a network in ONNX or OpenVINO's format: as for features that were made before.

    Args:
        path: the network; one that lupctl exported says it itself.
        features: their record.

    Raises:
        UsageError: neither says it.
        DataError, FormatError: as `open_session`.
    """
    session = open_session(path)
    if RECORD_KEY in session.metadata:
        return ForeignPixels()
    found = features.get("preprocessing")
    try:
        size, filter_ = (int(found["height"]), int(found["width"])), found["interpolation"]  # type: ignore[index]
        mean, std = (tuple(map(float, found[name])) for name in ("mean", "std"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise says_nothing(path) from error
    if find_image_input(session, path).kind == "uint8":
        return ForeignPixels(size, interpolation=filter_)
    return ForeignPixels(size, mean, std, filter_)  # type: ignore[arg-type]


def recorded_fingerprint(path: Path) -> str:
    """The fingerprint that features of a network carry: of a checkpoint, or of a file that lupctl exported.

    Raises:
        UsageError: a file of another program, whose features depend on how somebody prepares its images.
        DataError, FormatError: as `open_session`.
    """
    if not runs_alone(path):
        return file_fingerprint(path)
    text = open_session(path).metadata.get(RECORD_KEY)
    if text is None:
        raise says_nothing(path)
    try:
        return exported_fingerprint(parse_record(text, path), path)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: lupctl's record is damaged", hint="export it again: lupctl model export") from error


def recorded_parent(path: Path) -> str | None:
    """The fingerprint of the checkpoint that a network's file was exported from; None where that is not known.

    Raises:
        DataError, FormatError: as `open_session`.
    """
    text = open_session(path).metadata.get(RECORD_KEY)
    parents = {} if text is None else parse_record(text, path).get("parents")
    found = parents.get("checkpoint") if isinstance(parents, Mapping) else None
    return None if found is None else str(found)


def says_nothing(path: Path) -> UsageError:
    """The error of a network of another program where a record is needed."""
    return UsageError(
        f"{path}: does not say how its images are prepared",
        hint=f"write it into a copy: lupctl model export {path} --pixels 256x128 --mean imagenet --std imagenet "
        f"--out {path.with_name(f'{path.stem}-lupctl.onnx')}",
    )
