"""Checksums of a features file, in its record: a flipped bit would otherwise be a score that is a little off."""

import json
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.formats.pack.samples import COLUMN_TYPES, Samples
from lupctl.core.system.threads.ordered import map_in_order, pick_workers

CHECKSUM_KEY: Final = "crc32"
# Of one checksum: enough for a thread's turn, and few enough numbers for a record.
BLOCK_BYTES: Final = 1 << 24


class VectorChecksums:
    """CRC-32 of every `BLOCK_BYTES` of vectors, to the row; however the vectors come in blocks, it is the same.

    Args:
        row_bytes: of one vector.
    """

    def __init__(self, row_bytes: int) -> None:
        self._rows = rows_at_once(row_bytes)
        self._left = 0  # rows that the last checksum still takes
        self.found: list[int] = []

    def add(self, block: NDArray[Any]) -> None:
        """Counts the next vectors, (B, D) as they are stored."""
        row = 0
        while row < len(block):
            if not self._left:
                self.found.append(0)
                self._left = self._rows
            some = block[row : row + self._left]
            self.found[-1] = checksum(some, self.found[-1])
            row, self._left = row + len(some), self._left - len(some)


def rows_at_once(row_bytes: int) -> int:
    """How many vectors a checksum covers."""
    return max(1, BLOCK_BYTES // max(row_bytes, 1))


def checksum(values: NDArray[Any], before: int = 0) -> int:
    """CRC-32 of an array's bytes, continued from that of what comes before it."""
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, before)


def samples_checksum(samples: Samples, record: Mapping[str, Any]) -> int:
    """CRC-32 of who is on the images, and of the record without its checksums."""
    found = zlib.crc32(json.dumps({**record, CHECKSUM_KEY: None}, sort_keys=True).encode())
    for column, kind in COLUMN_TYPES.items():
        found = checksum(np.asarray(getattr(samples, column), kind), found)
    for part in samples.name.joined():
        found = zlib.crc32(part, found)
    return found


def check_samples(path: Path, samples: Samples, record: Mapping[str, Any], *, hint: str) -> None:
    """Compares the checksum of a file that has one; files of earlier versions have none.

    Raises:
        FormatError: it is another one.
    """
    known = record.get(CHECKSUM_KEY)
    if known is not None and samples_checksum(samples, record) != known["samples"]:
        raise FormatError(f"{path}: damaged: its record or its samples are not those that were written", hint=hint)


def check_vectors(path: Path, vectors: NDArray[Any], record: Mapping[str, Any], *, hint: str) -> None:
    """Reads all vectors and compares their checksums, on all cores.

    Raises:
        FormatError: some are not those that were written.
    """
    known = record.get(CHECKSUM_KEY)
    if known is None:
        return
    rows = rows_at_once(vectors.itemsize * vectors.shape[1])
    starts, wanted = range(0, len(vectors), rows), known["features"]
    if len(starts) != len(wanted):
        raise FormatError(f"{path}: damaged: {len(wanted)} checksums for {len(starts)} blocks of features", hint=hint)
    work = map_in_order(lambda row: checksum(vectors[row : row + rows]), starts, workers=pick_workers(), at_once=1)
    with closing(work) as found:
        for row, one in zip(starts, found, strict=True):
            if one != wanted[row // rows]:
                last = min(row + rows, len(vectors))
                raise FormatError(
                    f"{path}: damaged: the features of images {row + 1:,} to {last:,} are not those that were written",
                    hint=hint,
                )
