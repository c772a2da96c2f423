"""Fills a pack from a source: image by image, or in blocks where nothing has to be decoded."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from lupctl.core.choices import MAX_BAD, ROLE_NAMES, SHARD_BYTES, ImageCheck
from lupctl.core.data.packing.stored import build_reader
from lupctl.core.data.sources.records import AheadSource, BlockSource, Source
from lupctl.core.formats.images.headers import HeaderReader
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.write import PackWriter
from lupctl.core.formats.pack.write_shard import PackedBlock, PackedImage
from lupctl.core.system.threads.ordered import map_in_order

# Encoded bytes in a block: fits into a core's cache between reading, checksumming and writing.
BLOCK_BYTES = 2**19
FEWEST_ROWS, MOST_ROWS = 16, 1024
# Rows between two requests for what the disk should fetch next.
ROWS_AHEAD = 256


@dataclass(frozen=True)
class PackSettings:
    """How the images of a source are checked and stored.

    Args:
        size: height and width; if given, every image is decoded, resized and encoded again (JPEG, quality 95).
        check: `decode` decodes every image; `header` accepts a JPEG or PNG of complete and plain structure without
            decoding it, and decodes the rest.
        max_bad: largest share of images, 0 to 1, that may fail; they are left out.
        shard_bytes: maximum number of encoded bytes in one file.
    """

    size: tuple[int, int] | None = None
    check: ImageCheck = "decode"
    max_bad: float = MAX_BAD
    shard_bytes: int = SHARD_BYTES

    @property
    def checked(self) -> ImageCheck:
        """The check that is actually made: an image that is resized is always decoded."""
        return "decode" if self.size else self.check


@dataclass(frozen=True)
class Filling:
    """Copies the images of a source into a pack.

    Args:
        writer: receives the images, starting at its `position`.
        source: where they come from.
        samples: the N images that `source` lists.
        settings: how they are checked and stored.
        mean_bytes: approximate mean size of an encoded image; None if unknown.
        workers: number of decoding threads.
    """

    writer: PackWriter
    source: Source
    samples: Samples
    settings: PackSettings
    mean_bytes: int | None
    workers: int

    def run(self) -> Generator[int, None, None]:
        """Packs or rejects every image; yields the number since the last yield. Close the generator to stop early."""
        if self.settings.checked == "header" and isinstance(self.source, BlockSource):
            yield from self._fill_blocks(self.source.read_block)
        else:
            yield from self._fill_rows(end=len(self.samples))

    def _fill_rows(self, *, end: int) -> Iterator[int]:
        """Packs the rows up to `end - 1` one by one."""
        samples, begin = self.samples, self.writer.position
        # Elements of a memoryview are Python integers at a third of the cost of numpy's scalars.
        persons, cameras, roles = samples.person.data, samples.camera.data, samples.role.data
        read = build_reader(self.source, size=self.settings.size, check=self.settings.checked)
        images = map_in_order(read, samples.name[begin:end], workers=self.workers)
        with closing(images):
            for row, image in enumerate(images, start=begin):
                if row % ROWS_AHEAD == 0:
                    self._read_ahead(row)
                name = samples.name[row]
                if image.reason:
                    self.writer.reject(name, image.reason)
                else:
                    role = ROLE_NAMES[roles[row]]
                    self.writer.add(
                        PackedImage(
                            encoded=image.encoded,
                            height=image.height,
                            width=image.width,
                            name=name,
                            person=persons[row],
                            camera=cameras[row],
                            role=role,
                        )
                    )
                yield 1

    def _fill_blocks(self, read: Callable[[int, int], list[memoryview] | None]) -> Iterator[int]:
        """Packs whole blocks of images of plain structure; any other block goes row by row."""
        headers = HeaderReader()
        num_rows = min(max(BLOCK_BYTES // (self.mean_bytes or BLOCK_BYTES), FEWEST_ROWS), MOST_ROWS)
        # No block contains images of two roles.
        for role_end in [*(np.flatnonzero(np.diff(self.samples.role)) + 1).tolist(), len(self.samples)]:
            while (begin := self.writer.position) < role_end:
                end = min(begin + num_rows, role_end)
                self._read_ahead(begin)
                values = read(begin, end)
                block = None if values is None else _build_block(values, self.samples.part(begin, end), headers)
                if block is None:
                    yield from self._fill_rows(end=end)
                else:
                    self.writer.add_block(block)
                    yield end - begin

    def _read_ahead(self, row: int) -> None:
        if isinstance(self.source, AheadSource):
            self.source.read_ahead(row)


def _build_block(values: Sequence[memoryview], samples: Samples, headers: HeaderReader) -> PackedBlock | None:
    """A block of images of one role; None if one of them has to be decoded."""
    encoded = b"".join(values)
    count = len(values)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, count), out=offsets[1:])
    size = headers.read_sizes(encoded, offsets)
    if not size.all():
        return None
    checksums = np.fromiter(map(crc32, values), np.uint32, count)
    return PackedBlock(encoded=encoded, offsets=offsets, crc32=checksums, size=size, samples=samples)
