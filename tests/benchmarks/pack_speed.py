"""Packing against a bare decode loop, and random reads from a pack.

Example: python tests/benchmarks/pack_speed.py --images 20000

The bare loop reads each file and decodes it, in as many threads over the same files. Both run several times in turns,
because a shared machine drifts; the best and the median of each are printed.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.threads.ordered import pick_workers

NUM_READS = 200_000


def draw_files(folder: Path, count: int, *, height: int, width: int) -> None:
    """Smooth random textures; at 128 x 64 a JPEG has about as many bytes as a person's crop."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        path = folder / f"{index // 1000:04d}" / f"{index:08d}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])


def decode_all(files: list[str], workers: int) -> None:
    """The bare loop: every thread takes its share of the files, with nothing between file and pixels."""

    def decode(share: list[str]) -> None:
        for path in share:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123, the quickest way there is
                assert cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_COLOR) is not None

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, [files[start::workers] for start in range(workers)]))


def seconds_of(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def time_packing(root: Path, out: Path, *, workers: int, rounds: int) -> None:
    files = [str(root / name) for name in ImagesSource(root, dataset="speed").list_images().name]
    quiet = Progress(quiet=True)

    def pack_all() -> None:
        pack(
            ImagesSource(root, dataset="speed"),
            out=out,
            progress=quiet,
            workers=workers,
            force=True,
        )

    bare, packing = [], []
    for _ in range(rounds):
        bare.append(seconds_of(lambda: decode_all(files, workers)))
        packing.append(seconds_of(pack_all))
    print(f"{len(files):,} images, {workers} threads, {rounds} rounds; images/s: best, median")
    for name, seconds in (("bare decode", bare), ("pack", packing)):
        print(f"  {name:12} {len(files) / min(seconds):>9,.0f} {len(files) / statistics.median(seconds):>9,.0f}")
    print(f"  pack / bare  {min(bare) / min(packing):9.2f} {statistics.median(bare) / statistics.median(packing):9.2f}")


def time_reads(path: Path, *, rounds: int) -> None:
    made = open_pack(path)
    rows = random.Random(0).choices(range(len(made)), k=NUM_READS)
    read = made.read
    best = min(seconds_of(lambda: [read(row) for row in rows]) for _ in range(rounds))
    print(f"random reads ({made.num_bytes / len(made):,.0f} bytes each, one thread): {NUM_READS / best:,.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="how many to draw")
    parser.add_argument("--folder", type=Path, help="real images instead of drawn ones")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.folder or Path(scratch, "files")
        if args.folder is None:
            root.mkdir()
            draw_files(root, args.images, height=args.height, width=args.width)
        out = Path(scratch, "speed.h5")
        time_packing(root, out, workers=pick_workers(args.workers), rounds=args.rounds)
        time_reads(out, rounds=args.rounds)


if __name__ == "__main__":
    main()
