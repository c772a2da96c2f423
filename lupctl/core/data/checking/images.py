"""Checks of every image of a dataset, with results in arrays: millions of images take 12 bytes each."""

import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.pack.runs import find_damage, plan_runs
from lupctl.core.system.examples import NUM_EXAMPLES
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.threads.ordered import map_in_order, pick_workers

# Runs of one megabyte that a thread takes at a time.
RUNS_AT_ONCE = 2


@dataclass
class ImageChecks:
    """Results of checking N images.

    Args:
        key: (N) uint64, checksum and length of the encoded image: equal for equal bytes, rarely equal otherwise;
            0 for an image that cannot be read.
        size: (N, 2) uint16, height and width, 0 for an image that cannot be read; None if the images were not decoded.
        num_bad: number of images that cannot be read.
        examples: the first five of those, with the reason.
    """

    key: NDArray[np.uint64]
    size: NDArray[np.uint16] | None = None
    num_bad: int = 0
    examples: list[str] = field(default_factory=list)

    def note_bad(self, row: int, name: str, reason: str) -> None:
        """Records that an image cannot be read."""
        self.key[row] = 0
        self.num_bad += 1
        if len(self.examples) < NUM_EXAMPLES:
            self.examples.append(f"{name}: {reason}")


@dataclass(frozen=True)
class _ImageCheck:
    key: int = 0
    size: tuple[int, int] = (0, 0)
    reason: str = ""


def decode_all(
    read: Callable[[int], bytes], names: Sequence[str], *, title: str, workers: int | None, progress: Progress
) -> ImageChecks:
    """Reads and decodes every image.

    Args:
        read: the encoded image of one row; called from several threads.
        names: (N) names of the images.
        title: of the progress bar.
        workers: number of threads; None uses one per core.
        progress: where progress is reported.
    """

    def check_one(row: int) -> _ImageCheck:
        try:
            encoded = read(row)
            height, width, _ = decode_rgb(encoded).shape
        except CorruptImageError as error:
            return _ImageCheck(reason=error.message)
        except OSError as error:
            return _ImageCheck(reason=f"cannot be read ({error.strerror})")
        return _ImageCheck((zlib.crc32(encoded) << 32) | len(encoded), (min(height, 65_535), min(width, 65_535)))

    count = len(names)
    size = np.zeros((count, 2), np.uint16)
    checks = ImageChecks(np.zeros(count, np.uint64), size)
    found_in_order = map_in_order(check_one, range(count), workers=pick_workers(workers))
    with closing(found_in_order), progress.task(title, total=count, unit="images") as task:
        for row, found in enumerate(found_in_order):
            if found.reason:
                checks.note_bad(row, names[row], found.reason)
            else:
                checks.key[row] = found.key
                size[row] = found.size
            task.advance()
    return checks


def compare_checksums(pack: Pack, *, title: str, workers: int | None, progress: Progress) -> ImageChecks:
    """Compares the checksum of every image of a pack; nothing is decoded.

    Args:
        pack: the pack.
        title: of the progress bar.
        workers: number of threads; None uses one per core.
        progress: where progress is reported.
    """
    checks = ImageChecks(
        np.concatenate(
            [shard.crc32.astype(np.uint64) << np.uint64(32) | np.diff(shard.offsets).view(np.uint64)
             for shard in pack.shards]
        )
    )  # fmt: skip
    runs = plan_runs(pack)
    damage_in_order = map_in_order(find_damage, runs, workers=pick_workers(workers), at_once=RUNS_AT_ONCE)
    with closing(damage_in_order), progress.task(title, total=len(pack), unit="images") as task:
        for run, damage in zip(runs, damage_in_order, strict=True):
            for row, reason in damage:
                checks.note_bad(row, pack.samples.name[row], reason)
            task.advance(run.end - run.begin)
    return checks
