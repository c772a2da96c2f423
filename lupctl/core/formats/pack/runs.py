"""Compare the checksums of a pack at disk speed: long runs of images at once, without a bytes object for each image."""

import threading
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.pack.shards import Shard

# Small enough to stay in a core's cache from the read to the checksum.
RUN_BYTES = 2**20


class Run(NamedTuple):
    """Consecutive images of one file: `begin` to `end - 1` in the file, starting at row `first` of the pack."""

    shard: Shard
    begin: int
    end: int
    first: int


class Damage(NamedTuple):
    """An image whose bytes are not those that were packed: its row in the pack, and what is wrong."""

    row: int
    reason: str


def plan_runs(pack: Pack, *, num_bytes: int = RUN_BYTES) -> list[Run]:
    """The whole pack as runs of at most `num_bytes`, or of one larger image."""
    runs = []
    start = 0
    for shard in pack.shards:
        begin = 0
        while begin < len(shard):
            end = int(np.searchsorted(shard.offsets, shard.offsets[begin] + num_bytes, side="right")) - 1
            end = max(end, begin + 1)
            runs.append(Run(shard, begin, end, start + begin))
            begin = end
        start += len(shard)
    return runs


def find_damage(run: Run) -> list[Damage]:
    """The images of a run whose checksum differs from the packed one; may run in several threads."""
    shard, begin, end, first = run
    offsets = shard.offsets[begin : end + 1] - shard.offsets[begin]
    try:
        view, length = _read(shard.path, shard.base + int(shard.offsets[begin]), int(offsets[-1]))
    except OSError as error:
        return [Damage(first + row, f"cannot be read ({error.strerror})") for row in range(end - begin)]
    ends = offsets.tolist()
    return [
        Damage(first + row, "cut short" if ends[row + 1] > length else "wrong checksum")
        for row, wanted in enumerate(shard.crc32[begin:end].tolist())
        if crc32(view[ends[row] : ends[row + 1]]) != wanted or ends[row + 1] > length
    ]


_of_thread = threading.local()


def _read(path: Path, begin: int, length: int) -> tuple[memoryview, int]:
    """The calling thread's buffer, refilled on each call, and the number of bytes that the file had."""
    buffer = getattr(_of_thread, "buffer", None)
    if buffer is None or len(buffer) < length:
        buffer = _of_thread.buffer = bytearray(length)
    view = memoryview(buffer)[:length]
    done = 0
    with path.open("rb", buffering=0) as stream:
        stream.seek(begin)
        while done < length and (count := stream.readinto(view[done:])):
            done += count
    return view, done
