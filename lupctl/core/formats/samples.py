"""Who is on each image: the columns that packs and features share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lupctl.core.errors import FormatError

GROUP = "samples"
COLUMN_TYPES: dict[str, np.dtype[Any]] = {"person": np.dtype("<i8"), "camera": np.dtype("<i2"), "role": np.dtype("u1")}


@dataclass(frozen=True)
class Samples:
    """N images in parallel columns.

    Args:
        person: (N) int64, the dataset's own number; -1 unknown or junk.
        camera: (N) int16, as published; -1 unknown.
        role: (N) uint8, see `lupctl.core.choices.ROLE_CODES`.
        names: (N) paths relative to the dataset's root; unique.
    """

    person: NDArray[np.int64]
    camera: NDArray[np.int16]
    role: NDArray[np.uint8]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: ArrayLike) -> "Samples":
        """The samples at `indices` (K integers, or N booleans), in that order."""
        rows = np.arange(len(self))[np.asarray(indices)] if len(self) else np.zeros(0, np.int64)
        return Samples(
            person=self.person[rows],
            camera=self.camera[rows],
            role=self.role[rows],
            names=[self.names[row] for row in rows],
        )


def concatenate_samples(parts: list[Samples]) -> Samples:
    """Several runs of samples, one after the other; one run is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return Samples(
        person=np.concatenate([part.person for part in parts]),
        camera=np.concatenate([part.camera for part in parts]),
        role=np.concatenate([part.role for part in parts]),
        names=[name for part in parts for name in part.names],
    )


def write_samples(file: h5py.File, samples: Samples) -> None:
    """Writes `samples/person`, `camera`, `role` and `name` into an open HDF5 file."""
    group = file.create_group(GROUP)
    for column, values in (("person", samples.person), ("camera", samples.camera), ("role", samples.role)):
        group.create_dataset(column, data=np.asarray(values, COLUMN_TYPES[column]), track_times=False)
    names = np.array(samples.names, dtype=object)
    group.create_dataset("name", data=names, dtype=h5py.string_dtype("utf-8"), track_times=False)


def read_samples(file: h5py.File, path: Path, *, hint: str) -> Samples:
    """Reads what `write_samples` wrote.

    Args:
        file: the open file.
        path: its name, for messages.
        hint: the command that makes the file again.

    Raises:
        FormatError: a column is missing or has another length than the others.
    """
    missing = [column for column in (*COLUMN_TYPES, "name") if f"{GROUP}/{column}" not in file]
    if missing:
        raise FormatError(f"{path}: has no {GROUP}/{missing[0]}, which every file of this kind holds", hint=hint)
    columns = {column: file[f"{GROUP}/{column}"][()].astype(kind) for column, kind in COLUMN_TYPES.items()}
    names = [str(name) for name in file[f"{GROUP}/name"].asstr()[()]]
    for column, values in columns.items():
        if values.shape != (len(names),):
            raise FormatError(f"{path}: {GROUP}/{column} has shape {values.shape} for {len(names)} names", hint=hint)
    return Samples(person=columns["person"], camera=columns["camera"], role=columns["role"], names=names)
