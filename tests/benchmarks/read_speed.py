"""Random reads from a small and from a large pack, bare, checked, decoded, and as the steps of a training run.

Example: python tests/benchmarks/read_speed.py --images 10000 2000000 --scratch /tmp

Crops of 128 x 64 (3.2 kB) repeat in the large pack, but each lies in a place of its own: 6.5 GB, which are removed at
the end and have to fit into the memory beside what runs there, as a disk is not what is measured. All packs take turns
in one process, because a shared machine drifts; printed are the medians of the rounds, in microseconds on a core.

bare       the system's own read at a place that is known: nothing looked up, nothing compared
read       Pack.read, one row after the other
together   Pack.find for the rows of a step and Pack.read_place, as the loader reads
decoded    the same and decoded, PackImages.decode_or_next
step       a step of the training loader, two views drawn for each image
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pack_speed import draw_files

from lupctl.core.choices import ROLE_CODES
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.shards import PACK_FORMAT
from lupctl.core.formats.pack.write import PackWriter
from lupctl.core.formats.pack.write_shard import PackedBlock
from lupctl.core.formats.record import build_record
from lupctl.core.system.strings import build_column
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import StepDataset
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.plan import ViewPlan

Item = TypeVar("Item")

HEIGHT, WIDTH = 128, 64
NUM_DISTINCT = 10_000
BATCH = 250
# Images of each loop in a round: every image of the small pack twice.
NUM_READS = 20_000
LOOPS = ("bare", "read", "together", "decoded", "step")


def fill_pack(path: Path, count: int, images: list[bytes]) -> Path:
    """The images over and over, `count` in all, under names of their own."""
    record = build_record("pack", PACK_FORMAT, command=(), facts={"dataset": "speed"})
    with PackWriter(path, record=record) as writer:
        for begin in range(0, count, BATCH):
            rows = range(begin, min(begin + BATCH, count))
            some = [images[row % len(images)] for row in rows]
            writer.add_block(
                PackedBlock(
                    encoded=b"".join(some),
                    offsets=np.cumsum([0, *map(len, some)]),
                    crc32=np.array([crc32(image) for image in some], np.uint32),
                    size=np.tile(np.array([HEIGHT, WIDTH], np.uint16), (len(some), 1)),
                    samples=Samples(
                        person=np.full(len(some), -1, np.int64),
                        camera=np.full(len(some), -1, np.int16),
                        role=np.full(len(some), ROLE_CODES["unlabelled"], np.uint8),
                        name=build_column(f"{row // 1000:06d}/{row:09d}.jpg" for row in rows),
                    ),
                )
            )
        return writer.finish()


class Reads:
    """The loops over one pack.

    Args:
        path: the pack.
    """

    def __init__(self, path: Path) -> None:
        self.pack: Pack = open_pack(path)
        self.images = PackImages([self.pack])
        plan = ViewPlan(HEIGHT, WIDTH, (0.5,) * 3, (0.25,) * 3, crop_area=(0.2, 1.0))
        order = ShuffledOrder(len(self.pack), batch=BATCH, seed=1)
        self._steps = StepDataset(self.images, order, (plan, plan), seed=1)
        self._next = 0
        self._files = [os.open(shard.path, os.O_RDONLY) for shard in self.pack.shards]
        for shard in self.pack.shards:  # from now on it is in memory
            with shard.path.open("rb", buffering=0) as stream:
                while stream.read(2**24):
                    pass

    def prepare(self, loop: str, rng: np.random.Generator) -> Callable[[], object]:
        """The loop over rows that are drawn anew, each pass over a small pack in an order of its own."""
        if loop == "step":
            steps = range(self._next, self._next + NUM_READS // BATCH)
            self._next = steps.stop
            self._steps[self._next]  # the permutation is drawn once in an epoch
            return lambda: run(self._steps.__getitem__, steps)
        passes = -(-NUM_READS // len(self.pack))
        rows = np.concatenate([rng.permutation(len(self.pack)) for _ in range(passes)])[:NUM_READS]
        shares = [rows[begin:end] for begin, end in pairwise(range(0, NUM_READS + 1, BATCH))]
        match loop:
            case "bare":
                places = [(self._files[file], length, begin) for _, file, begin, length, _ in self.pack.find(rows)]
                return lambda: run(lambda place: os.pread(*place), places)
            case "read":
                return lambda: run(self.pack.read, rows.tolist())
            case "together":
                return lambda: run(self._read_together, shares)
            case _:
                return lambda: run(self._decode_together, shares)

    def _read_together(self, share: NDArray[np.int64]) -> None:
        run(self.pack.read_place, self.pack.find(share))

    def _decode_together(self, share: NDArray[np.int64]) -> None:
        for row, found in zip(share.tolist(), self.images.find(share), strict=True):
            self.images.decode_or_next(row, found)


def run(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Does it to each; nothing that comes of it is kept."""
    deque(map(work, items), maxlen=0)


def measure(packs: list[Reads], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Microseconds on a core per image, by loop and pack."""
    rng = np.random.default_rng(0)
    found: dict[tuple[str, int], list[float]] = {(loop, number): [] for loop in LOOPS for number in range(len(packs))}
    for turn in range(rounds):
        for loop in LOOPS:
            for step in range(len(packs)):
                number = (step + turn) % len(packs)
                work = packs[number].prepare(loop, rng)
                started_at = time.process_time()
                work()
                found[loop, number].append((time.process_time() - started_at) / NUM_READS * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 2_000_000])
    parser.add_argument("--scratch", type=Path, help="where the packs go for the time of the run")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        files = Path(scratch, "files")
        files.mkdir()
        draw_files(files, min(NUM_DISTINCT, max(args.images)), height=HEIGHT, width=WIDTH)
        images = [file.read_bytes() for file in sorted(files.rglob("*.jpg"))]
        packs = [Reads(fill_pack(Path(scratch, f"{count}.h5"), count, images)) for count in args.images]
        found = measure(packs, args.rounds)
    print(f"us on a core per image, medians of {args.rounds} rounds, the last column against the first")
    print("          " + "".join(f"{count:>14,}" for count in args.images))
    for loop in LOOPS:
        medians = [statistics.median(found[loop, number]) for number in range(len(packs))]
        print(f"{loop:10}" + "".join(f"{value:14.2f}" for value in medians) + f"{medians[-1] / medians[0]:10.3f}")


if __name__ == "__main__":
    main()
