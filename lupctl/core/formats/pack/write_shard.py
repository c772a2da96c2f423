"""Writing one file of a pack, image by image."""

import json
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, ROLE_NAMES, Role
from lupctl.core.formats.pack.columns import COLUMNS_KEY, digest_columns
from lupctl.core.formats.pack.crops import CropColumnsWriter, CropFacts
from lupctl.core.formats.pack.samples import Samples, write_samples
from lupctl.core.formats.record import reserve_space, write_record
from lupctl.core.system.disk.atomic import sync_path
from lupctl.core.system.strings import StringColumnBuilder

# A block of images is larger than this and bypasses the buffer, without being copied.
BUFFER_BYTES = 2**18
# Every object of the empty file starts on such a boundary, so that the start of the byte run does not depend on its
# length.
ALIGNMENT_BYTES = 512
# Upper bounds of what HDF5 needs besides the images: the skeleton and the objects of the file; the columns of a row;
# the name of a row without its characters.
FIXED_BYTES = 2**16
ROW_BYTES = 32
NAME_BYTES = 48


@dataclass(frozen=True)
class PackedImage:
    """One row of a pack.

    Args:
        encoded: the image, as it will be stored.
        height: its height, 1 to 65535.
        width: its width, 1 to 65535.
        name: path relative to the dataset's root.
        person: the dataset's own number; -1 unknown or junk.
        camera: as published; -1 unknown.
        role: what the image is for.
        crop: which video it was cut from and where, for crops from videos.
    """

    encoded: bytes
    height: int
    width: int
    name: str
    _: KW_ONLY
    person: int = -1
    camera: int = -1
    role: Role = "unlabelled"
    crop: CropFacts | None = None


@dataclass(frozen=True, kw_only=True)
class PackedBlock:
    """Consecutive rows of a pack, n images of one role.

    Args:
        encoded: the images, one after the other.
        offsets: (n+1) int64, rising from 0; image i is `encoded[offsets[i]:offsets[i+1]]`.
        crc32: (n) uint32, of each encoded image.
        size: (n, 2) uint16, height and width.
        samples: (n) who is in the images, all of one role and sorted by name.
    """

    encoded: bytes
    offsets: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    size: NDArray[np.uint16]
    samples: Samples

    def __len__(self) -> int:
        return len(self.crc32)

    def __iter__(self) -> Iterator[PackedImage]:
        samples = self.samples
        for row, (begin, end) in enumerate(pairwise(self.offsets.tolist())):
            yield PackedImage(
                encoded=self.encoded[begin:end],
                height=int(self.size[row, 0]),
                width=int(self.size[row, 1]),
                name=samples.name[row],
                person=int(samples.person[row]),
                camera=int(samples.camera[row]),
                role=ROLE_NAMES[int(samples.role[row])],
            )


class ShardWriter:
    """One file: image bytes are written where HDF5 will expect them, everything else around them at the end.

    This way no image is written twice, although HDF5 needs the full length of a contiguous run when it creates it.

    Args:
        path: the file; it appears only once it is finished.

    Attributes:
        num_bytes: encoded bytes so far.
    """

    def __init__(self, path: Path) -> None:
        self.num_bytes = 0
        self._path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._skeleton = path.with_name(f"{path.name}.skeleton")
        self._base = _write_skeleton(None, num_bytes=1)
        self._stream: BinaryIO = self._partial.open("wb", buffering=BUFFER_BYTES)
        self._stream.seek(self._base)
        # Arrays: a shard of tiny images has millions of rows, and a Python object takes 32 bytes or more.
        self._checksums = array("I")
        self._offsets = array("q", [0])
        self._sizes = array("H")  # height and width alternating
        self._persons = array("q")
        self._cameras = array("h")
        self._roles = array("B")
        self._names = StringColumnBuilder()
        self._crops = CropColumnsWriter()

    def add(self, image: PackedImage) -> None:
        """Append one image."""
        self._stream.write(image.encoded)
        self.num_bytes += len(image.encoded)
        self._checksums.append(zlib.crc32(image.encoded))
        self._offsets.append(self.num_bytes)
        self._sizes.append(image.height)
        self._sizes.append(image.width)
        self._persons.append(image.person)
        self._cameras.append(image.camera)
        self._roles.append(ROLE_CODES[image.role])
        self._names.append(image.name)
        self._crops.add(image.crop)

    def add_block(self, block: PackedBlock) -> None:
        """Append several images, column by column."""
        self._stream.write(block.encoded)
        self._offsets.frombytes((block.offsets[1:] + self.num_bytes).tobytes())
        self.num_bytes += len(block.encoded)
        self._checksums.frombytes(block.crc32.tobytes())
        self._sizes.frombytes(block.size.tobytes())
        self._persons.frombytes(block.samples.person.tobytes())
        self._cameras.frombytes(block.samples.camera.tobytes())
        self._roles.frombytes(block.samples.role.tobytes())
        self._names.extend(block.samples.name)
        self._crops.add_unknown(len(block))

    def finish(self, record: Mapping[str, object]) -> None:
        """Write everything except the images, flush the file to disk and rename it to its final name."""
        self._reserve(record)
        self._write_around()
        samples = Samples(
            person=np.frombuffer(self._persons, np.int64),
            camera=np.frombuffer(self._cameras, np.int16),
            role=np.frombuffer(self._roles, np.uint8),
            name=self._names.build(),
        )
        offsets = np.frombuffer(self._offsets, "<i8")
        crc32 = np.frombuffer(self._checksums, "<u4")
        size = np.frombuffer(self._sizes, "<u2").reshape(-1, 2)
        columns = digest_columns(record, offsets=offsets, crc32=crc32, size=size, samples=samples)
        with h5py.File(self._partial, "r+", locking=False) as file:
            for name, values in (("offsets", offsets), ("crc32", crc32), ("size", size)):
                file["images"].create_dataset(name, data=values, track_times=False)
            write_samples(file, samples)
            self._crops.write(file)
            write_record(file, {**record, COLUMNS_KEY: columns})
        sync_path(self._partial)
        self._partial.replace(self._path)
        sync_path(self._path.parent)

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        with suppress(OSError):  # a full disk rejects the rest of the buffer once more
            self._stream.close()
        self._partial.unlink(missing_ok=True)
        self._skeleton.unlink(missing_ok=True)

    def _reserve(self, record: Mapping[str, object]) -> None:
        self._stream.flush()
        end = self._base + self.num_bytes
        rows = len(self._names) * (ROW_BYTES + NAME_BYTES) + self._names.num_bytes + self._crops.num_bytes
        around = rows + 2 * len(json.dumps(record)) + FIXED_BYTES
        reserve_space(self._stream, begin=end, num_bytes=around + FIXED_BYTES)
        self._stream.truncate(end + around)  # releases what the skeleton will take

    def _write_around(self) -> None:
        """Write HDF5's own bytes before and after the images, which makes the images the byte run of a valid file."""
        base = _write_skeleton(self._skeleton, num_bytes=self.num_bytes)
        assert base == self._base, "the start of the byte run does not depend on its length"
        with self._skeleton.open("rb") as source, self._stream as stream:
            source.seek(base + self.num_bytes)
            stream.write(source.read())
            source.seek(0)
            stream.seek(0)
            stream.write(source.read(base))
        self._skeleton.unlink()


def _write_skeleton(path: Path | None, *, num_bytes: int) -> int:
    """Make an HDF5 file with `images/bytes` allocated but not filled, sparse on disk; in memory without a `path`.

    Returns:
        The position in the file where the byte run begins.
    """
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    with h5py.File(
        path or "in memory",
        "w",
        driver=None if path else "core",
        alignment_threshold=1,
        alignment_interval=ALIGNMENT_BYTES,
        locking=False,
        **({} if path else {"backing_store": False}),
    ) as file:
        group = file.create_group("images")
        space = h5py.h5s.create_simple((num_bytes,))
        return int(h5py.h5d.create(group.id, b"bytes", h5py.h5t.STD_U8LE, space, settings).get_offset())
