"""Packing from an LMDB against reading its values with the package lmdb alone.

Example: python tests/benchmarks/lmdb_speed.py --images 20000

Five loops over the same keys in sorted order, in turns, because a shared machine drifts:

lmdb alone      one thread gets every value, and does nothing with it
source          the same through lupctl's source: what reading costs before anything is done with an image
no decoding     source and pack writer: every value is read, summed and written to the disk, and trusted to be an image
lmdb, decoding  all threads get and decode every value with nothing in between: the bound for whoever checks images
pack            what `lupctl data pack` does: every image is decoded, so that what is no image is found and named

The values lie in the system's memory after the first loop, so that `lmdb alone` copies memory and nothing else, faster
than disks give them. On a disk that is slower than a loop, that loop runs at the disk's rate, and so does lmdb alone.
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import lmdb
import numpy as np
from pack_speed import draw_files, seconds_of

from lupctl.core.formats.pack import PACK_FORMAT
from lupctl.core.formats.pack_writer import PackWriter
from lupctl.core.formats.record import build_record
from lupctl.core.formats.shard_writer import PackedImage
from lupctl.core.progress import Progress
from lupctl.core.sources.lmdb_folder import LmdbSource, open_environment
from lupctl.core.stages.pack import pack
from lupctl.core.threads import pick_workers


def fill_database(path: Path, count: int) -> None:
    """Drawn JPEGs of 128 x 64 pixels under keys as LUPerson's."""
    with tempfile.TemporaryDirectory() as scratch:
        draw_files(Path(scratch), count, height=128, width=64)
        files = sorted(Path(scratch).rglob("*.jpg"))
        with lmdb.open(str(path), map_size=1 << 36) as environment, environment.begin(write=True) as change:
            for row, file in enumerate(files):
                change.put(f"00_00_{row // 100:04d}_{row % 100:08d}".encode(), file.read_bytes())


def read_bare(path: Path, keys: list[bytes]) -> None:
    with open_environment(lmdb, path).begin(buffers=False) as transaction:
        get = transaction.get
        for key in keys:
            get(key)


def decode_bare(path: Path, keys: list[bytes], workers: int) -> None:
    environment = open_environment(lmdb, path)

    def decode(share: list[bytes]) -> None:
        with environment.begin(buffers=False) as transaction:
            for key in share:
                pixels = cv2.imdecode(np.frombuffer(transaction.get(key), np.uint8), cv2.IMREAD_COLOR_RGB)
                assert pixels is not None

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, [keys[start::workers] for start in range(workers)]))


def write_undecoded(source: LmdbSource, out: Path) -> None:
    record = build_record("pack", PACK_FORMAT, command=[], facts={"dataset": "speed"})
    with PackWriter(out, record=record, force=True) as writer:
        for name in source.list_images().names:
            writer.add(PackedImage(source.read(name), 128, 64, name, -1, -1, "unlabelled"))
        writer.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="how many to draw")
    parser.add_argument("--database", type=Path, help="a real LMDB instead of a drawn one")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path, out = args.database or Path(scratch, "lmdb"), Path(scratch, "speed.h5")
        if args.database is None:
            fill_database(path, args.images)
        source, workers = LmdbSource(path, dataset="speed"), pick_workers(args.workers)
        names = list(source.list_images().names)
        keys = [name.removesuffix(".jpg").encode() for name in names]
        loops = {
            "lmdb alone": lambda: read_bare(source.path, keys),
            "source": lambda: [source.read(name) and None for name in names],
            "no decoding": lambda: write_undecoded(source, out),
            "lmdb, decoding": lambda: decode_bare(source.path, keys, workers),
            "pack": lambda: pack(source, out=out, progress=Progress(quiet=True), workers=workers, force=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(args.rounds):
            for name, loop in loops.items():
                seconds[name].append(seconds_of(loop))
        each = sum(len(source.read(name)) for name in names) / len(names)
    print(f"{len(names):,} images of {each:,.0f} bytes, {workers} threads, {args.rounds} rounds")
    print("  loop             images/s: best     median        MiB/s   share of lmdb alone")
    alone = min(seconds["lmdb alone"])
    for name, spent in seconds.items():
        rates = f"{len(names) / min(spent):>12,.0f} {len(names) / statistics.median(spent):>12,.0f}"
        print(f"  {name:15} {rates} {each * len(names) / min(spent) / 2**20:12,.0f} {alone / min(spent):12.1%}")
    share = min(seconds["lmdb, decoding"]) / min(seconds["pack"])
    print(f"  pack / (lmdb, decoding) {share:.1%}")


if __name__ == "__main__":
    main()
