"""Whether memory grows with work: the real commands on many images, every process of theirs watched.

    OMP_NUM_THREADS=1 python tests/benchmarks/soak.py --scratch /tmp

Tiny JPEGs, no two alike, are written to a folder; `data pack`, `data verify --deep`, `pretrain` with two workers and
`dump` with two workers follow, as they are typed. The resident set of each process is read from /proc twice a second;
its slope is that of a straight line through the last two thirds of the process's life, before which it imports its
libraries and fills its buffers. Target: over that time no process grows by more than 5 % of its peak, or 16 MiB; `data
pack` may grow by 150 bytes an image, as it keeps their names, labels and places until it writes them. Needs about 2 GB
of disk and removes it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

NUM_DISTINCT = 64
PER_FOLDER = 1_000
EVERY_S = 0.5
LEAST_READINGS = 40
# Of fewer images, most of the time goes into starting.
LEAST_IMAGES = 10_000
BATCH = 100
SETTINGS = (
    "pixels.height=32", "pixels.width=16", "net.width=8", f"data.batch={BATCH}", "moco.queue=500", "bn_groups=1",
    "schedule.warmup_epochs=0", "saving.every_epochs=1",
)  # fmt: skip
MIB = 2**20
PACK_BYTES = 150


@dataclass(frozen=True)
class Growth:
    """What a process's resident set did.

    Args:
        role: what the process is.
        seconds: how long it was watched.
        peak: bytes.
        slope: bytes a second.
        late_s: the time that the slope is of.
        readings: how many; few say nothing about a slope.
        allowed: bytes that it may grow by in that time.
    """

    role: str
    seconds: float
    peak: int
    slope: float
    late_s: float
    readings: int
    allowed: float

    @property
    def is_flat(self) -> bool:
        """Whether it grew by less than what is allowed, as far as that can be told."""
        return self.readings < LEAST_READINGS or self.slope * self.late_s <= self.allowed

    def __str__(self) -> str:
        return (
            f"  {self.role:28} {self.seconds:7.0f} s   peak {self.peak / MIB:7.0f} MiB   "
            f"{self.slope * 60 / MIB:+8.3f} MiB a minute, {self.slope * self.late_s / MIB:+7.2f} MiB in all"
            f"{'' if self.is_flat else '   GROWS'}"
        )


def write_images(folder: Path, count: int) -> None:
    """JPEGs of 32 x 16 pixels in folders of a thousand, each with its number as a comment."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(NUM_DISTINCT):
        coarse = rng.integers(0, 256, (4, 2, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (16, 32), interpolation=cv2.INTER_CUBIC)
        images.append(cv2.imencode(".jpg", pixels)[1].tobytes())
    for row in range(count):
        place = folder / f"{row // PER_FOLDER:05d}"
        if row % PER_FOLDER == 0:
            place.mkdir(parents=True)
        image, text = images[row % NUM_DISTINCT], f"{row:012d}".encode()
        head = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        (place / f"{row:09d}.jpg").write_bytes(image[:2] + head + image[2:])


def descendants(parent: int) -> Iterator[int]:
    """A process and all that came from it."""
    yield parent
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                yield from descendants(int(child))


def resident_bytes(process: int) -> int:
    """Its resident set; 0 when it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
    return 0


def watch(words: list[str], folder: Path, kept: int) -> list[Growth]:
    """Runs a command to its end; gives the growth of it, and of each of its children that lived long enough.

    Args:
        words: of the command.
        folder: where it runs.
        kept: bytes that it is known to keep for its images.
    """
    found: dict[int, list[tuple[float, int]]] = defaultdict(list)
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(["lupctl", *words], cwd=folder, stdout=output, stderr=output)
        while process.poll() is None:
            now = time.monotonic()
            for number in list(descendants(process.pid)):
                if size := resident_bytes(number):
                    found[number].append((now, size))
            time.sleep(EVERY_S)
    if process.returncode:
        sys.exit(f"lupctl {' '.join(words)}: exit code {process.returncode}\n{(folder / 'output.txt').read_text()}")
    growths: list[Growth] = []
    for number, readings in found.items():
        if len(readings) >= LEAST_READINGS or number == process.pid:
            role = "the command" if number == process.pid else f"child {len(growths)}"
            growths.append(measure(role, readings, kept))
    return growths


def measure(role: str, readings: list[tuple[float, int]], kept: int = 0) -> Growth:
    """The growth of a process from times and sizes.

    >>> measure("x", [(second, 100 + 3 * max(0, second - 5)) for second in range(30)]).slope.round(3)
    np.float64(3.0)
    """
    at, size = (np.array(column, float) for column in zip(*readings, strict=True))
    late = at >= at[0] + (at[-1] - at[0]) / 3
    slope = np.polyfit(at[late], size[late], 1)[0] if late.sum() > 1 else 0.0
    return Growth(
        role,
        at[-1] - at[0],
        int(size.max()),
        slope,
        at[-1] - at[late][0],
        len(at),
        max(kept, 0.05 * size.max(), 16 * MIB),
    )


def main() -> int:
    """Prints a table for each command; 1 when a process grows, if the images are enough to tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=2_000, help=f"of pre-training, of {BATCH} images each")
    parser.add_argument("--scratch", type=Path, help="where images and packs go for the time of the run")
    options = parser.parse_args()
    epochs = max(1, round(options.steps * BATCH / options.images))
    settings = [word for setting in (*SETTINGS, f"schedule.epochs={epochs}") for word in ("--set", setting)]
    lines = (
        ["data", "pack", "images", "--layout", "images", "--out", "images.h5"],
        ["data", "verify", "images.h5", "--deep"],
        ["pretrain", "--recipe", "small-moco", "--data", "images.h5", "--out", "run", "--workers", "2", *settings],
        ["dump", "run", "images.h5", "--workers", "2", "--out", "images.features.h5"],
    )
    is_flat = True
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        write_images(folder / "images", options.images)
        print(f"{options.images:,} images, {epochs} epochs of {options.images // BATCH:,} steps", flush=True)
        for words in lines:
            print(f"lupctl {' '.join(words)}", flush=True)
            for growth in watch(words, folder, PACK_BYTES * options.images if words[1] == "pack" else 0):
                print(growth, flush=True)
                is_flat &= growth.is_flat
    return int(not is_flat and options.images >= LEAST_IMAGES)


if __name__ == "__main__":
    sys.exit(main())
