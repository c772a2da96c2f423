"""Writing a pack: streaming, complete or absent, and continued at the first missing shard."""

import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import h5py
import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.files import check_absent, disk_errors_named, sync_path
from lupctl.core.formats.pack import PACK_FORMAT, read_shard
from lupctl.core.formats.record import build_record, write_record
from lupctl.core.formats.samples import Samples, write_samples

SHARD_BYTES = 8 * 2**30
BUFFER_BYTES = 2**20
# Every object of the empty file starts on such a boundary, so that the byte run's place does not depend on its length.
ALIGNMENT_BYTES = 512


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
    """

    encoded: bytes
    height: int
    width: int
    name: str
    person: int = -1
    camera: int = -1
    role: Role = "unlabelled"


class PackWriter:
    """Writes images into `path`, or into a folder of shards of that name when they fill more than one.

    Images come sorted by (role, name). Finished shards wait in a hidden folder beside `path`, which takes its place
    at the end; a reader never meets a part. A later writer for the same `digest` goes on behind the finished shards:
    feed it the entries from `position` on.

    Args:
        path: the pack, ending in `.h5`.
        record: what `build_record` gave, with at least the fact `dataset`.
        digest: stands for the images and settings this pack is made from; "" when the writing cannot be continued.
        shard_bytes: most encoded bytes in one file, save for an image that is larger by itself.
        force: replaces a pack that is there.

    Raises:
        UsageError: a pack is there and `force` is not set.
    """

    def __init__(
        self,
        path: Path,
        *,
        record: Mapping[str, object],
        digest: str = "",
        shard_bytes: int = SHARD_BYTES,
        force: bool = False,
    ) -> None:
        check_absent(path, force=force)
        if _holds_only_shards(path.with_suffix("")):
            check_absent(path.with_suffix(""), force=force)
        self.path = path
        self.quarantine: list[dict[str, str]] = []
        self.position = 0  # entries of the source that are behind us: packed, or set aside
        self._record = {**record, "digest": digest}
        self._shard_bytes = shard_bytes
        self._folder = path.with_name(f".{path.stem}.part")
        self._num_shards = 0
        self._shard: _ShardWriter | None = None
        self._first_position = 0  # of the shard being written
        self._rejected: list[dict[str, str]] = []
        self._last_key: tuple[int, str] = (-1, "")
        self._continue_shards(digest)

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        if self._num_shards == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, image: PackedImage) -> None:
        """Appends one image.

        Raises:
            DataError: the disk is full, or a name comes twice or out of order.
        """
        key = (ROLE_CODES[image.role], image.name)
        if key <= self._last_key:
            what = "comes twice" if key == self._last_key else f"comes after {self._last_key[1]}"
            raise DataError(
                f"{self.path}: image {image.name} {what}; names have to be unique and sorted within a role",
                hint="rename one of the files",
            )
        with disk_errors_named(self.path):
            if self._shard is not None and self._shard.num_bytes + len(image.encoded) > self._shard_bytes:
                self._finish_shard(last=False)
            if self._shard is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._shard = _ShardWriter(self._folder / _shard_name(self._num_shards))
            self._shard.add(image)
        self._last_key = key
        self.position += 1

    def reject(self, name: str, reason: str) -> None:
        """Notes an entry of the source that cannot be packed."""
        entry = {"name": name, "reason": reason}
        self._rejected.append(entry)
        self.quarantine.append(entry)
        self.position += 1

    def finish(self) -> Path:
        """Puts the pack in its place.

        Returns:
            `path`, or the folder of shards.

        Raises:
            DataError: there is no image, or the disk is full.
        """
        if self._shard is None:
            raise DataError(f"{self.path}: not one image to pack", hint="lupctl data pack --help")
        with disk_errors_named(self.path):
            self._finish_shard(last=True)
            return self._take_place()

    def _continue_shards(self, digest: str) -> None:
        """Goes on behind the shards that an earlier writer for the same images finished."""
        kept = set()
        for path in sorted(self._folder.glob("*.h5")):
            try:
                shard = read_shard(path)
            except FormatError:
                break
            place = shard.record["shard"]
            if not digest or shard.record["digest"] != digest or place["index"] != self._num_shards or place["last"]:
                break
            kept.add(path)
            self.quarantine += shard.record["quarantine"]
            self.position = self._first_position = place["rows"][1]
            self._num_shards += 1
            self._last_key = (int(shard.samples.role[-1]), shard.samples.names[-1])
        for path in self._folder.glob("*"):
            if path not in kept:
                path.unlink()

    def _finish_shard(self, *, last: bool) -> None:
        assert self._shard is not None
        folder = self.path.with_suffix("")
        if not last and folder.exists() and not _holds_only_shards(folder):
            raise UsageError(
                f"{folder}: is in the way; the images fill more than one file and go into a folder of that name",
                hint="name another --out, or a larger --shard-bytes",
            )
        place = {"index": self._num_shards, "rows": [self._first_position, self.position], "last": last}
        self._shard.finish({**self._record, "shard": place, "quarantine": self._rejected})
        self._shard = None
        self._first_position = self.position
        self._rejected = []
        self._num_shards += 1

    def _take_place(self) -> Path:
        """Moves the finished shards to where readers look, and takes away the pack that was there."""
        folder = self.path.with_suffix("")
        old = self.path.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._num_shards == 1:
            (self._folder / _shard_name(0)).replace(self.path)
            self._folder.rmdir()
            if _holds_only_shards(folder):
                folder.replace(old)
        else:
            sync_path(self._folder)
            if folder.exists():
                folder.replace(old)
            self._folder.replace(folder)
            with suppress(FileNotFoundError):
                self.path.unlink()
        sync_path(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)
        return self.path if self._num_shards == 1 else folder


class _ShardWriter:
    """One file: image bytes go where HDF5 will expect them, everything else is written around them at the end."""

    def __init__(self, path: Path) -> None:
        self.num_bytes = 0
        self._path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._skeleton = path.with_name(f"{path.name}.skeleton")
        self._base = _write_skeleton(self._skeleton, num_bytes=1)
        self._stream: BinaryIO = self._partial.open("wb", buffering=BUFFER_BYTES)
        self._stream.seek(self._base)
        self._checksums: list[int] = []
        self._offsets: list[int] = [0]
        self._sizes: list[tuple[int, int]] = []
        self._rows: list[tuple[int, int, int]] = []
        self._names: list[str] = []

    def add(self, image: PackedImage) -> None:
        self._stream.write(image.encoded)
        self.num_bytes += len(image.encoded)
        self._checksums.append(zlib.crc32(image.encoded))
        self._offsets.append(self.num_bytes)
        self._sizes.append((image.height, image.width))
        self._rows.append((image.person, image.camera, ROLE_CODES[image.role]))
        self._names.append(image.name)

    def finish(self, record: Mapping[str, object]) -> None:
        self._write_around()
        rows = np.array(self._rows, np.int64)
        samples = Samples(
            person=rows[:, 0],
            camera=rows[:, 1].astype(np.int16),
            role=rows[:, 2].astype(np.uint8),
            names=self._names,
        )
        with h5py.File(self._partial, "r+", locking=False) as file:
            for name, values in (
                ("offsets", np.array(self._offsets, "<i8")),
                ("crc32", np.array(self._checksums, "<u4")),
                ("size", np.array(self._sizes, "<u2")),
            ):
                file["images"].create_dataset(name, data=values, track_times=False)
            write_samples(file, samples)
            write_record(file, record)
        sync_path(self._partial)
        self._partial.replace(self._path)
        sync_path(self._path.parent)

    def discard(self) -> None:
        with suppress(OSError):  # a full disk refuses the rest of the buffer once more
            self._stream.close()
        self._partial.unlink(missing_ok=True)
        self._skeleton.unlink(missing_ok=True)

    def _write_around(self) -> None:
        """Puts HDF5's own bytes before and behind the images, so that the file is one whose byte run they are."""
        base = _write_skeleton(self._skeleton, num_bytes=self.num_bytes)
        assert base == self._base, "the place of the byte run does not depend on its length"
        with self._skeleton.open("rb") as source, self._stream as stream:
            source.seek(base + self.num_bytes)
            stream.write(source.read())
            source.seek(0)
            stream.seek(0)
            stream.write(source.read(base))
        self._skeleton.unlink()


def _write_skeleton(path: Path, *, num_bytes: int) -> int:
    """Writes an HDF5 file with `images/bytes` allocated and not filled, so that it is sparse on disk.

    Returns:
        Where in the file the byte run begins.
    """
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=ALIGNMENT_BYTES, locking=False) as file:
        group = file.create_group("images")
        space = h5py.h5s.create_simple((num_bytes,))
        return int(h5py.h5d.create(group.id, b"bytes", h5py.h5t.STD_U8LE, space, settings).get_offset())


def _shard_name(index: int) -> str:
    return f"{index:05d}.h5"


def _holds_only_shards(folder: Path) -> bool:
    """Whether a folder is a sharded pack: what else may lie there is not ours to replace."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return bool(entries) and all(entry.suffix == ".h5" for entry in entries)


def write_pack(
    path: Path,
    images: Iterable[PackedImage],
    *,
    dataset: str,
    command: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
) -> Path:
    """Writes images, sorted by (role, name), as a pack.

    Returns:
        `path`, or the folder of shards when they fill more than one.

    Raises:
        UsageError: a pack is there and `force` is not set.
        DataError: no image, a name twice or out of order, or the disk is full.
    """
    record = build_record("pack", PACK_FORMAT, command=command, facts={**(facts or {}), "dataset": dataset})
    with PackWriter(path, record=record, shard_bytes=shard_bytes, force=force) as writer:
        for image in images:
            writer.add(image)
        return writer.finish()
