"""Features, format 1: one vector per image, and who is in it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.formats.features.checksums import (
    CHECKSUM_KEY,
    VectorChecksums,
    check_samples,
    check_vectors,
    samples_checksum,
)
from lupctl.core.formats.pack.samples import Samples, read_samples, write_samples
from lupctl.core.formats.record import created, open_recorded, write_record
from lupctl.core.system.disk.limits import check_growth

FEATURES_FORMAT = 1
FEATURES_SUFFIX = ".features.h5"
HINT = "make it again: lupctl dump --force"
TYPES = ("float32", "float16")
# An upper bound of what HDF5 needs for who is on an image, without the letters of its name.
ROW_BYTES = 80


@dataclass(frozen=True)
class Features:
    """N vectors and the images they belong to.

    Args:
        features: (N, D) float32 or float16, not normalised; memory-mapped if it was read from a file.
        samples: who is in each image, in the same order.
        record: the file's record, as `build_record` makes it.
    """

    features: NDArray[Any]
    samples: Samples
    record: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class FeaturesHead:
    """Everything in a features file except the vectors.

    Args:
        shape: N, D.
        type_name: `float32` or `float16`.
        samples: who is in each image.
        record: the file's record.
    """

    shape: tuple[int, int]
    type_name: str
    samples: Samples
    record: Mapping[str, Any]


def write_features(path: Path, features: Features) -> None:
    """Write a complete features file, or leave what was there; the same features give the same bytes.

    Raises:
        ValueError: the vectors are not an (N, D) matrix of a known type for the N images.
        DataError: the disk is full or refuses the write.
    """
    shape, kind = features.features.shape, features.features.dtype
    if kind.name not in TYPES or len(shape) != 2 or shape[0] != len(features.samples):
        raise ValueError(f"features of shape {shape} and type {kind} for {len(features.samples)} images")
    write_blocks(path, [features.features], features.samples, features.record, dim=shape[1], type_name=kind.name)


def write_blocks(
    path: Path,
    blocks: Iterable[NDArray[Any]],
    samples: Samples,
    record: Mapping[str, Any],
    *,
    dim: int,
    type_name: str,
) -> None:
    """Writes a features file of which a block at a time is in memory; however they are cut, the bytes are the same.

    Args:
        path: the file.
        blocks: (B, D) each, all N vectors in their order.
        samples: who is on each image.
        record: the file's record.
        dim: D.
        type_name: `float32` or `float16`.

    Raises:
        ValueError: the blocks are not N vectors.
        DataError: the disk is full or refuses the write.
    """
    row_bytes = dim * np.dtype(type_name).itemsize
    vectors_bytes = row_bytes * len(samples)
    around = samples.name.num_bytes + ROW_BYTES * len(samples) + 2 * len(json.dumps(record)) + (vectors_bytes >> 16)
    with created(path, num_bytes=vectors_bytes + around) as file:
        checksums = VectorChecksums(row_bytes)
        written = file.create_dataset("features", (len(samples), dim), type_name, track_times=False)
        row = 0
        for block in blocks:
            stored = np.ascontiguousarray(block, type_name)
            written[row : row + len(block)] = stored
            checksums.add(stored)
            row += len(block)
        if row != len(samples):
            raise ValueError(f"{row} features of {len(samples)} images")
        write_samples(file, samples)
        found = {"features": checksums.found, "samples": samples_checksum(samples, record)}
        write_record(file, {**record, CHECKSUM_KEY: found})


def read_features(path: Path) -> Features:
    """Open a features file; the vectors are memory-mapped, so they may exceed the memory, and read once to check them.

    Raises:
        DataError: there is no such file.
        FormatError: not a features file, of another format, cut short, damaged, or its parts do not fit together.
    """
    with open_recorded(path, "features", FEATURES_FORMAT, hint=HINT) as (file, record):
        head = _read_head(file, path, record)
        vectors = map_matrix(file["features"], path)
        check_vectors(path, vectors, record, hint=HINT)
        return Features(features=vectors, samples=head.samples, record=head.record)


def map_matrix(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """A matrix in an HDF5 file, mapped read-only if it is contiguous, else read into memory.

    Args:
        dataset: (N, D) of any floating-point type.
        path: its file.

    Raises:
        FormatError: the file is shorter than the matrix.
    """
    start = dataset.id.get_offset()  # None for chunked, compressed and never written data
    if start is None or not dataset.size or not dataset.dtype.isnative:
        # read_direct fills one array; indexing would allocate a second copy for a moment.
        check_growth(path, dataset.id.get_storage_size(), dataset.nbytes)
        vectors = np.zeros(dataset.shape, dtype=dataset.dtype.newbyteorder("="))
        if dataset.size:
            dataset.read_direct(vectors)
        return vectors
    if start + dataset.nbytes > path.stat().st_size:
        raise FormatError(f"{path}: cut short, {start + dataset.nbytes:,} bytes were expected", hint=HINT)
    return np.memmap(path, dtype=dataset.dtype, mode="r", offset=start, shape=dataset.shape)


def read_features_head(path: Path) -> FeaturesHead:
    """Read the samples and the record of a features file, but no vectors.

    Raises:
        DataError, FormatError: as `read_features`.
    """
    with open_recorded(path, "features", FEATURES_FORMAT, hint=HINT) as (file, record):
        return _read_head(file, path, record)


def read_features_record(path: Path) -> dict[str, Any]:
    """Read the record of a features file alone.

    Raises:
        DataError, FormatError: as `read_features`.
    """
    with open_recorded(path, "features", FEATURES_FORMAT, hint=HINT) as (_, record):
        return _without_checksums(record)


def _read_head(file: h5py.File, path: Path, record: Mapping[str, Any]) -> FeaturesHead:
    if not isinstance(file.get("features"), h5py.Dataset):
        raise FormatError(f"{path}: has no features, which every file of this kind has", hint=HINT)
    samples = read_samples(file, path, hint=HINT)
    shape, kind = file["features"].shape, file["features"].dtype.name
    if kind not in TYPES:
        raise FormatError(f"{path}: features of type {kind}; float32 or float16 was expected", hint=HINT)
    if len(shape) != 2 or shape[0] != len(samples):
        raise FormatError(f"{path}: features of shape {shape} for {len(samples)} images", hint=HINT)
    check_samples(path, samples, record, hint=HINT)
    return FeaturesHead(shape=(shape[0], shape[1]), type_name=kind, samples=samples, record=_without_checksums(record))


def _without_checksums(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of what was computed; whoever writes it again computes checksums of its own."""
    return {key: value for key, value in record.items() if key != CHECKSUM_KEY}
