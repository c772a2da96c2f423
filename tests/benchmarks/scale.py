"""Millions of tiny images: time and peak memory of packing, opening, verifying and reading; what that means for more.

Example: python tests/benchmarks/scale.py --images 200000 1000000 2000000 --scratch /tmp

The images are made while they are read: a few distinct tiny JPEGs, each with a comment of its own inside, so that no
two have the same bytes and none has to lie on a disk first. Every step runs in a process of its own, so that its peak
memory is its own. Needs about 1 kB of disk per image and removes it. Reads are at random over all images, and over ten
thousand of them, which a processor's caches hold as those of a small pack; a bare read is the system's own at a place
that is known, with nothing looked up and nothing compared. Seconds on a core tell more than seconds
where other work keeps the machine busy. The last lines extrapolate to LUPerson-NL's 10,683,716 images by the straight
line through two runs.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from lupctl.core.data.checking.images import compare_checksums
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.stages.pack import pack
from lupctl.core.stages.verify import verify_pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import StringColumnBuilder

TARGET = 10_683_716
NUM_DISTINCT = 64
SHARD_BYTES = 2**29
QUIET = Progress(quiet=True)
STEPS = ("pack", "open", "verify", "verify --deep", "checksums only", "read", "read 10,000", "bare read")


class TinyImages:
    """A source of `count` JPEGs of 32 x 16 pixels that are made when they are read.

    Args:
        count: how many.
    """

    dataset = "tiny"

    def __init__(self, count: int) -> None:
        self.facts: dict[str, object] = {"layout": "benchmark", "terms": "random textures"}
        self._count = count
        rng = np.random.default_rng(0)
        self._images = []
        for _ in range(NUM_DISTINCT):
            coarse = rng.integers(0, 256, (4, 2, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (16, 32), interpolation=cv2.INTER_CUBIC)
            self._images.append(cv2.imencode(".jpg", pixels)[1].tobytes())

    def list_images(self) -> Samples:
        """Names as LUPerson's: country, city, video, frame and box, 42 letters."""
        names = StringColumnBuilder()
        for row in range(self._count):
            names.append(f"country{row // 200_000:03d}/city/video{row // 200:06d}/{row:012d}.jpg")
        return Samples(
            name=names.build(),
            person=np.full(self._count, -1, np.int64),
            camera=np.full(self._count, -1, np.int16),
            role=np.zeros(self._count, np.uint8),
        )

    def read(self, name: str) -> bytes:
        """One of the JPEGs with the name as a comment behind its first two bytes."""
        text = name.encode()
        image = self._images[int(name[-9:-4]) % NUM_DISTINCT]
        return image[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + image[2:]


def run_step(step: str, count: int, out: Path, num_reads: int) -> dict[str, float]:
    """One step in this process: seconds, and how many bytes or images it was about."""
    path = out.with_suffix("") if out.with_suffix("").is_dir() else out
    started_at, cpu_at = time.perf_counter(), time.process_time()
    extra: dict[str, float] = {}
    match step:
        case "pack":
            assert (
                pack(TinyImages(count), out=out, progress=QUIET, settings=PackSettings(shard_bytes=SHARD_BYTES)).images
                == count
            )
        case "open":
            assert len(open_pack(path).fingerprint) > 0
        case "verify" | "verify --deep":
            verdict = verify_pack(path, progress=QUIET, deep=step != "verify")
            assert (verdict.images, verdict.findings) == (count, [])
        case "checksums only":
            made = open_pack(path)
            started_at, cpu_at = time.perf_counter(), time.process_time()
            assert compare_checksums(made, title="", workers=None, progress=QUIET).num_bad == 0
            extra["bytes"] = made.num_bytes
        case "read" | "read 10,000":
            made = open_pack(path)
            few = random.Random(1).sample(range(count), min(count, 10_000))
            rows = random.Random(0).choices(range(count) if step == "read" else few, k=num_reads)
            for row in rows[:1000]:
                made.read(row)
            started_at, cpu_at = time.perf_counter(), time.process_time()
            for row in rows:
                made.read(row)
            extra["reads"] = num_reads
        case "bare read":
            made = open_pack(path)
            places = find_places(made, num_reads)
            for file, begin, length in places:
                os.pread(file, length, begin)
            started_at, cpu_at = time.perf_counter(), time.process_time()
            for file, begin, length in places:
                os.pread(file, length, begin)
            extra["reads"] = num_reads
    return {
        "seconds": time.perf_counter() - started_at,
        "cpu_seconds": time.process_time() - cpu_at,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **extra,
    }


def find_places(made: Pack, num_reads: int) -> list[tuple[int, int, int]]:
    """Open file, begin and length of random images, so that nothing has to be looked up to read them."""
    files = [os.open(shard.path, os.O_RDONLY) for shard in made.shards]
    places = []
    for row in random.Random(0).choices(range(len(made)), k=num_reads):
        part = 0
        while row >= len(made.shards[part]):
            row -= len(made.shards[part])
            part += 1
        begin, end = made.shards[part].offsets[row : row + 2].tolist()
        places.append((files[part], made.shards[part].base + begin, end - begin))
    return places


def run_apart(step: str, count: int, out: Path, num_reads: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--images", str(count), "--scratch", str(out)]
    command += ["--reads", str(num_reads)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def describe(step: str, count: int, found: dict[str, float]) -> str:
    """One line of the table."""
    seconds, cpu, mib = found["seconds"], found["cpu_seconds"], found["mib"]
    rate = f"   {found['bytes'] / seconds / 1e9:.2f} GB/s" if "bytes" in found else ""
    each = cpu / found.get("reads", count) * 1e6
    return f"{count:>10,}  {step:15} {seconds:8.1f} s {cpu:8.1f} s {each:7.2f} us/image  {mib:7.0f} MiB{rate}"


def extrapolate(step: str, low: tuple[int, dict[str, float]], high: tuple[int, dict[str, float]]) -> str:
    """The straight line through two runs, at the target."""
    (few, at_few), (many, at_many) = low, high

    def reach(key: str) -> float:
        return at_many[key] + (at_many[key] - at_few[key]) / (many - few) * (TARGET - many)

    seconds, cpu = (at_many[key] if "reads" in at_many else reach(key) for key in ("seconds", "cpu_seconds"))
    slope = (at_many["mib"] - at_few["mib"]) * 2**20 / (many - few)
    return f"{TARGET:>10,}  {step:15} {seconds:8.1f} s {cpu:8.1f} s {slope:6.1f} bytes/image {reach('mib'):7.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 200_000, 1_000_000, 2_000_000])
    parser.add_argument("--scratch", type=Path, help="where the packs go for the time of the run")
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(run_step(args.step, args.images[0], args.scratch, args.reads)))
        return
    print(f"{'images':>10}  {'step':15} {'seconds':>10} {'on a core':>10} {'of it each':>16} {'peak memory':>12}")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for count in args.images:
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            for step in STEPS:
                found[step, count] = run_apart(step, count, Path(folder, "tiny.h5"), args.reads)
                print(describe(step, count, found[step, count]), flush=True)
    many = max(args.images)
    few = min((count for count in args.images if count >= many // 20), default=many)
    if few < many:
        print(f"\nby the straight line through {few:,} and {many:,} images:")
        for step in STEPS:
            print(extrapolate(step, (few, found[step, few]), (many, found[step, many])))


if __name__ == "__main__":
    main()
