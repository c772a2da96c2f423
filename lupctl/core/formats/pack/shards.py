"""One file of a pack: where its images are, and who is in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.formats.pack.samples import Samples, read_samples
from lupctl.core.formats.record import open_recorded

PACK_FORMAT = 1
HINT = "make it again: lupctl data pack --force"


@dataclass(frozen=True)
class Shard:
    """One file of a pack.

    Args:
        path: the file.
        base: position in the file where the run of image bytes begins.
        offsets: (n+1) int64; image i is the bytes from `offsets[i]` to `offsets[i+1]` of that run.
        crc32: (n) uint32, of each encoded image.
        record: the file's own record.
    """

    path: Path
    base: int
    offsets: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.crc32)


def read_shard(path: Path) -> tuple[Shard, Samples, NDArray[np.uint16]]:
    """Everything in one file of a pack except the images.

    Returns:
        where the images are, who is in each of the n images, and (n, 2) their height and width.

    Raises:
        DataError: no such file.
        FormatError: not a pack, of another format, cut short, or its columns disagree.
    """
    with open_recorded(path, "pack", PACK_FORMAT, hint=HINT) as (file, record):
        missing = [name for name in ("bytes", "offsets", "crc32", "size") if f"images/{name}" not in file]
        if missing:
            raise FormatError(f"{path}: has no images/{missing[0]}, which every pack has", hint=HINT)
        shard = Shard(
            path=path,
            base=_byte_run_start(file["images/bytes"], path),
            offsets=file["images/offsets"][()].astype(np.int64, copy=False),
            crc32=file["images/crc32"][()].astype(np.uint32, copy=False),
            record=record,
        )
        size = file["images/size"][()].astype(np.uint16, copy=False)
        samples = read_samples(file, path, hint=HINT)
        _check_shard(shard, size, count=len(samples), num_bytes=int(file["images/bytes"].shape[0]))
    return shard, samples, size


def check_sequence(path: Path, shards: list[Shard]) -> None:
    """Reject a folder in which a shard is missing or belongs to another pack.

    Args:
        path: the folder.
        shards: its files, in order.

    Raises:
        FormatError: they are not one complete pack.
    """
    last = len(shards) - 1
    for index, shard in enumerate(shards):
        place = shard.record.get("shard", {})
        if place.get("index", 0) != index or place.get("last", True) != (index == last):
            raise FormatError(
                f"{path}: {shard.path.name} is not file {index + 1} of {last + 1} of one pack; a shard is missing",
                hint=HINT,
            )
        if shard.record.get("digest") != shards[0].record.get("digest"):
            raise FormatError(
                f"{path}: {shard.path.name} was packed from different images than the first file", hint=HINT
            )


def _byte_run_start(images: h5py.Dataset, path: Path) -> int:
    """Where the run of image bytes begins in the file."""
    start = images.id.get_offset()  # None for chunked, compressed and never written data
    if images.ndim != 1 or images.dtype != np.uint8 or start is None:
        raise FormatError(f"{path}: images/bytes is not a contiguous run of uint8, so it cannot be read", hint=HINT)
    if start + images.shape[0] > path.stat().st_size:
        raise FormatError(f"{path}: cut short, {start + images.shape[0]:,} bytes were expected", hint=HINT)
    return int(start)


def _check_shard(shard: Shard, size: NDArray[np.uint16], *, count: int, num_bytes: int) -> None:
    for name, shape, expected in (
        ("offsets", shard.offsets.shape, (count + 1,)),
        ("crc32", shard.crc32.shape, (count,)),
        ("size", size.shape, (count, 2)),
    ):
        if shape != expected:
            raise FormatError(f"{shard.path}: images/{name} has shape {shape}; {expected} was expected", hint=HINT)
    if shard.offsets[0] != 0 or shard.offsets[-1] != num_bytes or (np.diff(shard.offsets) <= 0).any():
        raise FormatError(
            f"{shard.path}: images/offsets do not rise from 0 to the {num_bytes:,} bytes that are there", hint=HINT
        )
    if "dataset" not in shard.record:
        raise FormatError(f"{shard.path}: the record names no dataset", hint=HINT)
