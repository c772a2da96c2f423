"""Reading a pack: all images of a dataset, encoded, in one HDF5 file or in a folder of shards."""

import hashlib
import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError, DataError, FormatError
from lupctl.core.formats.pack.samples import Samples, concatenate_samples, read_name_blocks
from lupctl.core.formats.pack.shards import HINT, PACK_FORMAT, Shard, check_sequence, read_shard
from lupctl.core.formats.record import open_recorded
from lupctl.core.system.disk.reading import open_to_read, read_at

FINGERPRINT_COLUMNS = {
    "images/crc32": "<u4",
    "images/offsets": "<i8",
    "samples/person": "<i8",
    "samples/camera": "<i2",
    "samples/role": "u1",
}
# Where an encoded image is: its row, the number of its file, its first byte in that file, its length; and its checksum.
# A plain tuple: a named one would make a read a tenth slower.
Place = tuple[int, int, int, int, int]


class Pack:
    """Images of one dataset; made by `open_pack`.

    May be read from several threads and after a fork, and may be sent to another process: each process opens the files
    again at its first read.

    Attributes:
        path: the file, or the folder of shards.
        shards: the files, in order.
        samples: who is in each of the N images.
        size: (N, 2) uint16, height and width.
        record: the record of the first file, with the quarantined images of all files.
    """

    def __init__(self, path: Path, shards: list[Shard], *, samples: Samples, size: NDArray[np.uint16]) -> None:
        self.path = path
        self.samples = samples
        self.size = size
        quarantine = [entry for shard in shards for entry in shard.record.get("quarantine", [])]
        self.record: dict[str, Any] = {**shards[0].record, "quarantine": quarantine}
        self._starts = [0, *accumulate(map(len, shards))]
        self._bases = [shard.base for shard in shards]
        # One column for all files, so that rows of many files are looked up at once; each file has one extra offset.
        self._offsets, self._checksums = shards[0].offsets, shards[0].crc32
        if len(shards) > 1:
            self._offsets = np.concatenate([shard.offsets for shard in shards])
            self._checksums = np.concatenate([shard.crc32 for shard in shards])
        self.shards = [
            replace(shard, offsets=self._offsets[begin + part : end + part + 1], crc32=self._checksums[begin:end])
            for part, (shard, begin, end) in enumerate(zip(shards, self._starts, self._starts[1:], strict=False))
        ]
        # An element of a memoryview is a Python integer, at a third of the cost of a numpy scalar.
        self._offset_of, self._checksum_of = self._offsets.data, self._checksums.data
        self._files: list[int] = []
        self._process = -1
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (self.path,)

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(self.record["dataset"])

    @property
    def num_bytes(self) -> int:
        """Bytes of all encoded images together."""
        return sum(int(shard.offsets[-1]) for shard in self.shards)

    @cached_property
    def fingerprint(self) -> str:
        """See `pack_fingerprint`."""
        return pack_fingerprint([shard.path for shard in self.shards])

    def read(self, index: int) -> bytes:
        """The encoded image of one row, after comparing its checksum.

        Args:
            index: row from 0 to N-1.

        Raises:
            IndexError: there is no such row.
            CorruptImageError: the bytes are not those that were packed.
        """
        starts = self._starts
        if not 0 <= index < starts[-1]:
            raise IndexError(f"row {index} of a pack of {starts[-1]} images")
        part = bisect_right(starts, index) - 1 if len(starts) > 2 else 0
        begin = self._offset_of[index + part]
        length = self._offset_of[index + part + 1] - begin
        return self.read_place((index, part, self._bases[part] + begin, length, self._checksum_of[index]))

    def find(self, rows: NDArray[np.int64]) -> Iterator[Place]:
        """Where the encoded images of some rows are.

        Columns with millions of rows fit no cache. This fetches the rows from memory in parallel, whereas `read` waits
        for each of them in turn.

        Args:
            rows: (B), each from 0 to N-1.

        Raises:
            IndexError: there is no such row.
        """
        invalid = (rows < 0) | (rows >= len(self))
        if invalid.any():
            raise IndexError(f"row {rows[invalid][0]} of a pack of {len(self)} images")
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        begins = self._offsets[rows + parts]
        lengths = self._offsets[rows + parts + 1] - begins
        columns = (rows, parts, begins + np.array(self._bases)[parts], lengths, self._checksums[rows])
        return zip(*(column.tolist() for column in columns), strict=True)

    def read_place(self, place: Place) -> bytes:
        """The encoded image at a place that `find` returned, after comparing its checksum.

        Raises:
            CorruptImageError: the bytes are not those that were packed.
        """
        if self._process != os.getpid():
            self._open_files()
        row, part, begin, length, checksum = place
        encoded = read_at(self._files[part], length, begin)
        if zlib.crc32(encoded) != checksum:
            found = "cut short" if len(encoded) < length else "wrong checksum"
            raise CorruptImageError(
                f"{self.shards[part].path}: image {row} ({self.samples.name[row]}) is damaged: {found}", hint=HINT
            )
        return encoded

    def close(self) -> None:
        """Close this process's files; a later read opens them again."""
        for file in getattr(self, "_files", []):
            with suppress(OSError):
                os.close(file)
        self._files = []
        self._process = -1

    def _open_files(self) -> None:
        with self._opening:
            if self._process == os.getpid():
                return  # another thread was quicker
            # After a fork the file descriptors are copies that belong to this process alone, so closing them is safe.
            self.close()
            try:
                self._files = [open_to_read(shard.path) for shard in self.shards]
            except OSError as error:
                raise DataError(f"{self.path}: cannot be opened ({error.strerror})", hint=HINT) from error
            self._process = os.getpid()


def open_pack(path: Path) -> Pack:
    """Open a pack and check its structure, but not its images.

    Raises:
        DataError: there is no such pack.
        FormatError: not a pack, of another format, cut short, or a shard is missing.
    """
    shards: list[Shard] = []
    samples: list[Samples] = []
    sizes: list[NDArray[np.uint16]] = []
    for file in pack_files(path):
        shard, sample, size = read_shard(file)
        shards.append(shard)
        samples.append(sample)
        sizes.append(size)
    check_sequence(path, shards)
    return Pack(path, shards, samples=concatenate_samples(samples), size=np.concatenate(sizes))


def pack_files(path: Path) -> list[Path]:
    """The files of a pack in order.

    Raises:
        DataError: there is no such pack.
        FormatError: a folder without shards.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such pack", hint="lupctl data pack")
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise FormatError(
            f"{path}: a folder without any *.h5; a pack or a folder of its shards was expected",
            hint=f"if it contains images: lupctl data pack {path}",
        )
    return files


def pack_fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 over checksums, lengths, samples and names: the same images give the same hash, however sharded.

    Columns are read one at a time, so that the columns of all files need not fit in memory.

    Args:
        files: of one pack, in order.
    """
    digest = hashlib.sha256()
    for name, kind in FINGERPRINT_COLUMNS.items():
        for path in files:
            with open_recorded(path, "pack", PACK_FORMAT, hint=HINT) as (file, _):
                column = file[name][()]
            values = np.diff(column) if name == "images/offsets" else column
            digest.update(np.ascontiguousarray(values, kind).data)
    separator = b""
    for path in files:
        with open_recorded(path, "pack", PACK_FORMAT, hint=HINT) as (file, _):
            for block in read_name_blocks(file["samples/name"]):
                digest.update(separator + b"\0".join(block))
                separator = b"\0"
    return f"sha256:{digest.hexdigest()}"


def read_pack_record(path: Path) -> dict[str, Any]:
    """The record of a pack's first file, without reading its columns.

    Raises:
        DataError: there is no such pack.
        FormatError: not a pack, of another format, or cut short.
    """
    first = min(path.glob("*.h5"), default=path) if path.is_dir() else path
    with open_recorded(first, "pack", PACK_FORMAT, hint=HINT) as (_, record):
        return record
