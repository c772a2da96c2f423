"""Packing from an LMDB against reading its values with the package lmdb alone.

Example: python tests/benchmarks/lmdb_speed.py --images 100000
Example: python tests/benchmarks/lmdb_speed.py --images 100000 --cold

Loops over the same keys in sorted order, which take turns because a shared machine drifts, in another order each time
because what one leaves in the system's memory is felt by the next:

lmdb alone      one thread gets every value and sums it (CRC-32), so that every byte is read; nothing is written
lmdb, ahead     the same with lmdb's own reading ahead, which lupctl and the published trainers leave off
lmdb, copying   the same, and the values are written one after the other to a file that is brought to the disk: what
                everyone does who packs, and nothing else
lmdb, decoding  all threads get and decode every value: the bound for whoever decodes images
pack, header    `lupctl data pack --check header`: structures looked at, summed, written, and the fingerprint
pack, no keys   the same without the key file: lmdb walks over the keys first, and fetches each value with its key
pack            `lupctl data pack`: every image is decoded, so that what is no image is found and named

Without --cold the values lie in the system's memory after the first loop: `lmdb alone` then runs at the memory's rate,
and whoever writes at the disk's. With it the system lets go of the database before each loop, as it does by itself with
one that is larger than the memory. The rate of the disk is measured beside, by writing as many bytes and bringing them
to the disk. Seconds on a core tell more than seconds where other work keeps the machine busy.
"""

import argparse
import gc
import os
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import lmdb
import numpy as np
from pack_speed import draw_files

from lupctl.core.choices import ImageCheck
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.data.sources.layouts.lmdb_folder import LmdbSource
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.threads.ordered import pick_workers

NUM_DISTINCT = 2_000


@dataclass
class Measured:
    """Seconds of one loop, a round each."""

    wall: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)


def fill_database(path: Path, count: int, *, height: int, width: int) -> None:
    """Drawn JPEGs under keys as LUPerson's, written in the keys' order and with a key file, as its converter does."""
    with tempfile.TemporaryDirectory() as scratch:
        draw_files(Path(scratch), min(count, NUM_DISTINCT), height=height, width=width)
        images = [file.read_bytes() for file in sorted(Path(scratch).rglob("*.jpg"))]
        keys = [f"00_{row // 1_000_000:02d}_{row // 100 % 10_000:04d}_{row:08d}" for row in range(count)]
        with lmdb.open(str(path), map_size=1 << 38) as environment, environment.begin(write=True) as change:
            for row, key in enumerate(keys):
                change.put(key.encode(), images[row % len(images)])
        (path / "keys.pkl").write_bytes(pickle.dumps(keys))


def open_bare(path: Path, *, ahead: bool = False) -> lmdb.Environment:
    return lmdb.open(str(path), readonly=True, lock=False, readahead=ahead, meminit=False)


def read_bare(path: Path, keys: list[bytes], *, ahead: bool) -> None:
    with open_bare(path, ahead=ahead) as environment, environment.begin(buffers=True) as transaction:
        get: Any = transaction.get
        for key in keys:
            crc32(get(key))


def copy_bare(path: Path, keys: list[bytes], out: Path) -> None:
    with open_bare(path, ahead=True) as environment, environment.begin(buffers=True) as transaction:
        get: Any = transaction.get
        with out.open("wb", buffering=2**20) as stream:
            for key in keys:
                value = get(key)
                crc32(value)
                stream.write(value)
            stream.flush()
            os.fsync(stream.fileno())


def decode_bare(path: Path, keys: list[bytes], workers: int) -> None:
    with open_bare(path) as environment:

        def decode(share: list[bytes]) -> None:
            with environment.begin(buffers=False) as transaction:
                for key in share:
                    pixels = cv2.imdecode(np.frombuffer(transaction.get(key) or b"", np.uint8), cv2.IMREAD_COLOR_RGB)
                    assert pixels is not None

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(decode, [keys[start::workers] for start in range(workers)]))


def write_bare(out: Path, num_bytes: int) -> None:
    block = os.urandom(2**20)
    with out.open("wb", buffering=0) as stream:
        for _ in range(max(num_bytes // len(block), 1)):
            stream.write(block)
        os.fsync(stream.fileno())


def pack_all(path: Path, out: Path, *, check: ImageCheck, workers: int, keys: str | None = None) -> None:
    source = LmdbSource(path, dataset="speed", keys=keys)
    pack(source, out=out, progress=Progress(quiet=True), settings=PackSettings(check=check), workers=workers)


def let_go(path: Path) -> None:
    """Has the system forget what it holds of the database in memory."""
    gc.collect()  # a mapped file is not forgotten
    os.sync()
    with (path / "data.mdb").open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(work: Callable[[], object], measured: Measured) -> None:
    started_at, core_at = time.perf_counter(), time.process_time()
    work()
    measured.wall.append(time.perf_counter() - started_at)
    measured.core.append(time.process_time() - core_at)


def report(found: dict[str, Measured], *, count: int, num_bytes: int) -> None:
    print("  loop             images/s: best     median   MB/s   us on a core   share of: lmdb alone   ahead   copying")
    for name, measured in found.items():
        best = min(measured.wall)
        rates = (
            f"{count / best:>12,.0f} {count / statistics.median(measured.wall):>10,.0f} {num_bytes / best / 1e6:>6,.0f}"
        )
        shares = [
            statistics.median(found[other].wall) / statistics.median(measured.wall)
            for other in ("lmdb alone", "lmdb, ahead", "lmdb, copying")
        ]
        core = min(measured.core) / count * 1e6
        print(f"  {name:16} {rates} {core:14.2f} {shares[0]:22.1%} {shares[1]:7.1%} {shares[2]:9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="how many to write into the database")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--database", type=Path, help="the folder of a real LMDB instead of a drawn one")
    parser.add_argument("--scratch", type=Path, help="where database and pack go for the time of the run")
    parser.add_argument("--cold", action="store_true", help="read the database from the disk in each loop")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        path, out = args.database or Path(scratch, "lmdb"), Path(scratch, "speed.h5")
        if args.database is None:
            fill_database(path, args.images, height=args.height, width=args.width)
        workers = pick_workers(args.workers)
        with open_bare(path) as environment, environment.begin(buffers=True) as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
            num_bytes = sum(map(len, transaction.cursor().iternext(keys=False)))
        loops: dict[str, Callable[[], object]] = {
            "lmdb alone": lambda: read_bare(path, keys, ahead=False),
            "lmdb, ahead": lambda: read_bare(path, keys, ahead=True),
            "lmdb, copying": lambda: copy_bare(path, keys, out),
            "lmdb, decoding": lambda: decode_bare(path, keys, workers),
            "pack, header": lambda: pack_all(path, out, check="header", workers=workers),
            "pack, no keys": lambda: pack_all(path, out, check="header", workers=workers, keys="none"),
            "pack": lambda: pack_all(path, out, check="decode", workers=workers),
            "disk, writing": lambda: write_bare(out, num_bytes),
        }
        found = {name: Measured() for name in loops}
        for turn in range(args.rounds):
            for name, loop in random.Random(turn).sample(list(loops.items()), len(loops)):
                out.unlink(missing_ok=True)
                if args.cold:
                    let_go(path)
                measure(loop, found[name])
    state = "from the disk" if args.cold else "from memory"
    print(
        f"{len(keys):,} images of {num_bytes / len(keys):,.0f} bytes {state}, {workers} threads, {args.rounds} rounds"
    )
    report(found, count=len(keys), num_bytes=num_bytes)


if __name__ == "__main__":
    main()
