"""Who is in each image: the columns that sources, packs and features share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lupctl.core.errors import FormatError
from lupctl.core.system.strings import StringColumn, StringColumnBuilder

GROUP = "samples"
# Number of names that h5py turns into Python objects at once; larger blocks are slower.
NAME_ROWS = 1 << 13
COLUMN_TYPES: dict[str, np.dtype[Any]] = {"person": np.dtype("<i8"), "camera": np.dtype("<i2"), "role": np.dtype("u1")}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """N images as parallel columns.

    Args:
        person: (N) int64, the dataset's own number; -1 unknown or junk.
        camera: (N) int16, as published; -1 unknown.
        role: (N) uint8, see `lupctl.core.choices.ROLE_CODES`.
        name: (N) paths relative to the dataset's root with `/` between parts; unique.
    """

    person: NDArray[np.int64]
    camera: NDArray[np.int16]
    role: NDArray[np.uint8]
    name: StringColumn

    def __len__(self) -> int:
        return len(self.name)

    def select(self, indices: ArrayLike) -> "Samples":
        """The samples at `indices` (K integers, or N booleans), in that order."""
        rows = np.arange(len(self))[np.asarray(indices)] if len(self) else np.zeros(0, np.int64)
        return Samples(
            person=self.person[rows], camera=self.camera[rows], role=self.role[rows], name=self.name.take(rows)
        )

    def part(self, begin: int, end: int) -> "Samples":
        """The samples `begin` to `end - 1`, as views of the same memory."""
        rows = slice(begin, end)
        return Samples(person=self.person[rows], camera=self.camera[rows], role=self.role[rows], name=self.name[rows])


def concatenate_samples(parts: list[Samples]) -> Samples:
    """Several runs of samples, one after the other; a single run is returned as it is.

    Args:
        parts: is emptied along the way, so that at most one run of names is in memory twice.
    """
    if len(parts) == 1:
        return parts.pop()
    person = np.concatenate([part.person for part in parts])
    camera = np.concatenate([part.camera for part in parts])
    role = np.concatenate([part.role for part in parts])
    names = StringColumnBuilder()
    while parts:
        names.extend(parts.pop(0).name)
    return Samples(person=person, camera=camera, role=role, name=names.build())


def write_samples(file: h5py.File, samples: Samples) -> None:
    """Write `samples/person`, `camera`, `role` and `name` into an open HDF5 file."""
    group = file.create_group(GROUP)
    for column, values in (("person", samples.person), ("camera", samples.camera), ("role", samples.role)):
        group.create_dataset(column, data=np.asarray(values, COLUMN_TYPES[column]), track_times=False)
    kind = h5py.string_dtype("utf-8")
    written = group.create_dataset("name", shape=(len(samples),), dtype=kind, track_times=False)
    start = 0
    for block in samples.name.encoded_blocks(NAME_ROWS):
        written[start : start + len(block)] = np.array(block, dtype=object)
        start += len(block)


def read_samples(file: h5py.File, path: Path, *, hint: str) -> Samples:
    """Read what `write_samples` wrote.

    Args:
        file: the open file.
        path: its name, for messages.
        hint: the command that makes the file again.

    Raises:
        FormatError: a column is missing or differs in length from the others.
    """
    missing = [column for column in (*COLUMN_TYPES, "name") if f"{GROUP}/{column}" not in file]
    if missing:
        raise FormatError(f"{path}: has no {GROUP}/{missing[0]}, which every file of this kind has", hint=hint)
    columns = {column: file[f"{GROUP}/{column}"][()].astype(kind, copy=False) for column, kind in COLUMN_TYPES.items()}
    names = read_names(file[f"{GROUP}/name"])
    for column, values in columns.items():
        if values.shape != (len(names),):
            raise FormatError(f"{path}: {GROUP}/{column} has shape {values.shape} for {len(names)} names", hint=hint)
    return Samples(person=columns["person"], camera=columns["camera"], role=columns["role"], name=names)


def read_names(dataset: h5py.Dataset) -> StringColumn:
    """A column of variable-length strings; h5py itself would make a Python object of every name at once.

    Raises:
        ValueError: not strings, or a name is not UTF-8.
    """
    letters = bytearray()
    ends = np.zeros(len(dataset) + 1, np.int64)
    start = 0
    for block in read_name_blocks(dataset):
        stop = start + len(block)
        np.cumsum(np.fromiter(map(len, block), np.int64, len(block)), out=ends[start + 1 : stop + 1])
        ends[start + 1 : stop + 1] += ends[start]
        letters += b"".join(block)
        start = stop
    return StringColumn(np.frombuffer(letters, np.uint8), ends)


def read_name_blocks(dataset: h5py.Dataset) -> Iterator[list[bytes]]:
    """The names of a column in UTF-8, a few thousand at a time.

    Raises:
        ValueError: not strings, or a name is not UTF-8.
    """
    if dataset.ndim != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        raise ValueError(f"{dataset.name} is not a column of strings")
    for start in range(0, len(dataset), NAME_ROWS):
        block: list[bytes] = dataset[start : start + NAME_ROWS].tolist()
        b"\0".join(block).decode("utf-8")  # with a separator: each name has to be valid UTF-8 by itself
        yield block
