"""The JSON record in every HDF5 file of lupctl: what the file is and how it was made."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import h5py

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.atomic import atomic_path
from lupctl.core.system.disk.limits import check_growth
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.documents import check_shape, parse_json

RECORD_ATTRIBUTE = "lupctl"
# Depending on its version, h5py raises any of these when the inner structure of a file is damaged; a folder in place of
# a column lacks what every column has.
DAMAGE: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
# An upper bound of what HDF5 needs for itself.
OBJECT_BYTES = 2**16
Kind = Literal["pack", "features", "scores"]
# What is read of a record; the rest is only passed on.
REQUIRED = ("command", "parents", "dataset")
COMMON: dict[Any, Any] = {
    "command": [str], "parents": {str: str}, "dataset": str, "version": str, "recipe": dict, "terms": str,
    "source": {"terms": str, "notice": str, "notes": [str], "layout": str},
}  # fmt: skip
MAY_BE_NULL = ("recipe", "resized")
SHAPES: dict[Kind, dict[Any, Any]] = {
    "pack": {
        **COMMON, "digest": str, "check": str, "quarantine": [{"name": str, "reason": str}], "resized": [int],
        "shard": {"index": int, "last": bool, "begin": int, "end": int, "max_bytes": int},
    },
    "features": {**COMMON, "quarantine": list, "shard": dict, "flip": bool, "precision": str},
    "scores": {**COMMON, "before": dict, "after": dict, "distance": str, "precision": str},
}  # fmt: skip


def build_record(
    kind: Kind,
    format_number: int,
    *,
    command: Sequence[str],
    recipe: Mapping[str, object] | None = None,
    parents: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """A record with the entries that every file has, plus the file's own facts.

    It contains no time of day, so that the same input gives the same bytes.

    Args:
        kind: what the file is.
        format_number: number of that kind's format.
        command: the command line.
        recipe: the resolved recipe, where one was used.
        parents: fingerprints of the inputs by name.
        facts: whatever else a reader should know.
    """
    return {
        **(facts or {}),
        "format": format_number,
        "kind": kind,
        "version": version("lupctl"),
        "command": list(command),
        "recipe": None if recipe is None else dict(recipe),
        "parents": dict(parents or {}),
    }


def write_record(file: h5py.File, record: Mapping[str, object]) -> None:
    """Store the record as one JSON string with sorted keys in the root attribute `lupctl`."""
    file.attrs[RECORD_ATTRIBUTE] = json.dumps(record, sort_keys=True, ensure_ascii=False)


def reserve_space(stream: BinaryIO, *, begin: int, num_bytes: int) -> None:
    """Reserve disk space for what HDF5 is about to write; HDF5 releases the unused part when it closes the file.

    HDF5 2.0 crashes the whole process with a segmentation fault when the disk fills up while it closes a file.

    Args:
        stream: the file, open for writing; its position does not change.
        begin: first byte to reserve.
        num_bytes: number of bytes.

    Raises:
        OSError: the disk does not have that much space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), begin, num_bytes)
    else:  # macOS, Windows
        before = stream.tell()
        stream.seek(begin)
        stream.write(bytes(num_bytes))
        stream.seek(before)  # flushes, too


@contextmanager
def created(path: Path, *, num_bytes: int) -> Iterator[h5py.File]:
    """A new HDF5 file, which appears when the block is over; its space on the disk is reserved first.

    Where a disk fills up while HDF5 writes, it prints a traceback for each of its objects, or crashes.

    Args:
        path: the file.
        num_bytes: of everything that will be in it, HDF5's own objects aside.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    with atomic_path(path) as partial:
        h5py.File(partial, "w").close()
        with partial.open("r+b") as stream:
            reserve_space(stream, begin=partial.stat().st_size, num_bytes=num_bytes + OBJECT_BYTES)
        with h5py.File(partial, "r+", locking=False) as file:
            yield file


@contextmanager
def open_recorded(
    path: Path, kind: Kind, format_number: int, *, hint: str
) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """An HDF5 file of lupctl, open for reading, with its record.

    Args:
        path: the file.
        kind: what it must be.
        format_number: the format this lupctl reads.
        hint: the command that makes the file again.

    Raises:
        DataError: there is no such file.
        FormatError: not HDF5, cut short, of another kind, or of another format.
    """
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}", hint=hint)
    try:
        # Locks fail on some network disks, and a file that was renamed into place never changes.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        what = "cut short" if "truncated file" in str(error) else "not an HDF5 file"
        raise FormatError(f"{path}: {what}; a {kind} file was expected ({error})", hint=hint) from error
    with file:
        try:
            check_columns(file, path)
            yield file, _read_record(file, path, kind, format_number, hint)
        except DAMAGE as error:
            raise FormatError(f"{path}: damaged ({error})", hint=hint) from error


def check_columns(file: h5py.File, path: Path) -> None:
    """Refuses a file with a column that is far larger than what is stored of it, before any of it is read.

    Raises:
        FormatError: it has one.
    """
    most = path.stat().st_size

    def check(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            check_growth(path, min(item.id.get_storage_size(), most), item.nbytes)

    file.visititems(check)


def read_kind(path: Path) -> str | None:
    """What an HDF5 file of lupctl is, `pack`, `features` or `scores`; None for any other file."""
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r", locking=False) as file:
            record = parse_json(file.attrs[RECORD_ATTRIBUTE])
    except DAMAGE:
        return None  # the strict reader reports whatever is wrong with it
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if isinstance(kind, str) else None


def _read_record(file: h5py.File, path: Path, kind: Kind, format_number: int, hint: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = parse_json(file.attrs[RECORD_ATTRIBUTE], dict)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise FormatError(
            f"{path}: an HDF5 file without lupctl's record; a {kind} file was expected", hint=hint
        ) from error
    if record.get("kind") != kind:
        found = record.get("kind")
        if kind == "pack" and found == "features" and record.get("dataset"):
            hint = f"did you mean {record['dataset']}?"
        raise FormatError(f"{path}: contains {found}; a {kind} file was expected", hint=hint)
    if record.get("format") != format_number:
        raise FormatError(
            f"{path}: {kind} format {record.get('format')}; this lupctl reads format {format_number}", hint=hint
        )
    try:
        check_shape(record, SHAPES[kind])
        # Elsewhere null is nothing, which readers have a default for.
        record = {key: value for key, value in record.items() if value is not None or key in MAY_BE_NULL}
        missing = [key for key in REQUIRED if record.get(key) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except ValueError as error:
        raise FormatError(f"{path}: lupctl's record is damaged ({error})", hint=hint) from error
    return record
