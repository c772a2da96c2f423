"""Writing a pack: streamed, all or nothing, and resumed at the first missing shard."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from operator import lt
from pathlib import Path
from types import TracebackType

from lupctl.core.choices import ROLE_CODES, SHARD_BYTES
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.pack.columns import COLUMNS_KEY, columns_hold
from lupctl.core.formats.pack.lock import holds_only_shards, old_folder, part_folder, set_aside, writing
from lupctl.core.formats.pack.shards import PACK_FORMAT, read_shard
from lupctl.core.formats.pack.write_shard import PackedBlock, PackedImage, ShardWriter
from lupctl.core.formats.record import build_record
from lupctl.core.system.disk.atomic import check_absent, disk_errors_named, sync_path

# Entries of a record that describe one file or one writer, and not the pack.
FILE_KEYS = {"shard", "quarantine", "command", COLUMNS_KEY}


class PackWriter:
    """Writes images into `path`, or into a folder of shards of that name when they fill more than one file.

    Images must come sorted by (role, name). Finished shards are kept in a hidden folder next to `path` and moved into
    place at the end; a reader never sees an unfinished pack. With `resume`, a writer with the same record (apart from
    the command) continues after the shards that an earlier one finished: feed it the entries from `position` on. Use
    it in a `with` block, which keeps a second process from writing the same pack.

    Args:
        path: the pack, ending in `.h5`.
        record: the result of `build_record`, with at least the fact `dataset`.
        shard_bytes: most encoded bytes in one file, except for an image that is larger by itself.
        force: replaces an existing pack.
        resume: keeps the shards of an interrupted writer; only correct if the record differs for different inputs.

    Attributes:
        position: number of source entries handled so far, packed or rejected.
        quarantine: the rejected entries, each with `name` and `reason`.

    Raises:
        UsageError: a pack exists and `force` is not set, or `path` does not end in `.h5`.
        DataError: another process is writing this pack.
    """

    def __init__(
        self,
        path: Path,
        *,
        record: Mapping[str, object],
        shard_bytes: int = SHARD_BYTES,
        force: bool = False,
        resume: bool = False,
    ) -> None:
        if path.suffix != ".h5":
            raise UsageError(f"{path}: the name of a pack must end in .h5", hint=f"--out {path}.h5")
        self.path = path
        self.quarantine: list[dict[str, str]] = []
        self.position = 0
        self._record = dict(record)
        self._shard_bytes = shard_bytes
        self._force = force
        self._resume = resume
        self._folder = part_folder(path)
        self._num_shards = 0
        self._shard: ShardWriter | None = None
        self._first_position = 0  # of the shard being written
        self._rejected: list[dict[str, str]] = []
        self._last_key: tuple[int, str] = (-1, "")
        self._held = ExitStack()
        self._check_absent()

    def __enter__(self) -> "PackWriter":
        with disk_errors_named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(writing(self.path))
        try:
            self._check_absent()  # another process may have finished this pack between our check and our lock
            with disk_errors_named(self.path):
                self._folder.mkdir(exist_ok=True)
                self._continue_shards(resume=self._resume)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        if self._num_shards == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._held.close()

    def add(self, image: PackedImage) -> None:
        """Append one image.

        Raises:
            DataError: the disk is full, or a name comes twice or out of order.
        """
        key = (ROLE_CODES[image.role], image.name)
        self._check_next(key)
        try:
            self._open_shard(len(image.encoded)).add(image)
        except OSError:
            with disk_errors_named(self.path):  # entered only on failure: it costs as much as storing the image
                raise
        self._last_key = key
        self.position += 1

    def add_block(self, block: PackedBlock) -> None:
        """Append several images; the pack is the same as when each is added separately.

        Raises:
            DataError: as `add`.
        """
        names = next(block.samples.name.encoded_blocks(len(block)))
        in_order = all(map(lt, names, names[1:]))
        room = self._shard_bytes - (self._shard.num_bytes if self._shard else 0)
        if not in_order or len(block.encoded) > room:
            for image in block:
                self.add(image)
            return
        role = int(block.samples.role[0])
        self._check_next((role, block.samples.name[0]))
        with disk_errors_named(self.path):
            self._open_shard(len(block.encoded)).add_block(block)
        self._last_key = (role, block.samples.name[-1])
        self.position += len(block)

    def reject(self, name: str, reason: str) -> None:
        """Record an entry of the source that cannot be packed."""
        entry = {"name": name, "reason": reason}
        self._rejected.append(entry)
        self.quarantine.append(entry)
        self.position += 1

    def finish(self) -> Path:
        """Move the pack into place.

        Returns:
            `path`, or the folder of shards.

        Raises:
            DataError: there are no images, or the disk is full.
        """
        if self._shard is None:
            raise DataError(f"{self.path}: there are no images to pack", hint="lupctl data pack --help")
        with disk_errors_named(self.path):
            self._finish_shard(last=True)
            return self._move_into_place()

    def _check_next(self, key: tuple[int, str]) -> None:
        if key <= self._last_key:
            what = "comes twice" if key == self._last_key else f"comes after {self._last_key[1]}"
            raise DataError(
                f"{self.path}: image {key[1]} {what}; names must be unique and sorted within a role",
                hint="rename one of the files",
            )

    def _open_shard(self, num_bytes: int) -> ShardWriter:
        """The file that gets the next `num_bytes`."""
        if self._shard is not None and self._shard.num_bytes + num_bytes > self._shard_bytes:
            self._finish_shard(last=False)
        if self._shard is None:
            self._shard = ShardWriter(self._folder / _shard_name(self._num_shards))
        return self._shard

    def _check_absent(self) -> None:
        check_absent(self.path, force=self._force)
        if holds_only_shards(self.path.with_suffix("")):
            check_absent(self.path.with_suffix(""), force=self._force)

    def _continue_shards(self, *, resume: bool) -> None:
        """Continue after the shards that an earlier writer of this record finished, and remove anything else."""
        kept = set()
        for path in sorted(self._folder.glob("*.h5")) if resume else ():
            try:
                shard, samples, size = read_shard(path)
            except FormatError:
                break
            if not columns_hold(shard, samples, size):
                break
            entry = shard.record["shard"]
            # The last shard is written again: that is cheap, and finishing is then the same with and without resuming.
            if entry != {**entry, **self._entry(last=False)} or _identity(shard.record) != _identity(self._record):
                break
            kept.add(path)
            self.quarantine += shard.record["quarantine"]
            self.position = self._first_position = entry["end"]
            self._num_shards += 1
            self._last_key = (int(samples.role[-1]), samples.name[-1])
        for path in self._folder.glob("*"):
            if path not in kept:
                path.unlink()

    def _entry(self, *, last: bool) -> dict[str, object]:
        """The record entry that distinguishes one shard from another, as known before it is written."""
        return {
            "index": self._num_shards,
            "begin": self._first_position,
            "last": last,
            "max_bytes": self._shard_bytes,
        }

    def _finish_shard(self, *, last: bool) -> None:
        assert self._shard is not None
        folder = self.path.with_suffix("")
        if not last and folder.exists() and not holds_only_shards(folder):
            raise UsageError(
                f"{folder}: is in the way; the images fill more than one file and need a folder of that name",
                hint="choose another --out, or a larger --shard-bytes",
            )
        entry = {**self._entry(last=last), "end": self.position}
        self._shard.finish({**self._record, "shard": entry, "quarantine": self._rejected})
        self._shard = None
        self._first_position = self.position
        self._rejected = []
        self._num_shards += 1

    def _move_into_place(self) -> Path:
        """Move the finished shards to where readers expect them, and remove the previous pack.

        The previous pack is moved away first, unless the new one has exactly the same name: if the process is killed in
        between, the shards are still there and the same command moves them; in the other order, two packs would be left
        side by side.
        """
        folder = self.path.with_suffix("")
        old = old_folder(self.path)
        shutil.rmtree(old, ignore_errors=True)
        if self._num_shards == 1:
            if holds_only_shards(folder):
                set_aside(folder, old)
            (self._folder / _shard_name(0)).replace(self.path)
            self._folder.rmdir()
        else:
            sync_path(self._folder)
            for there in (self.path, folder):
                set_aside(there, old)
            self._folder.replace(folder)
        sync_path(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)
        return self.path if self._num_shards == 1 else folder


def _identity(record: Mapping[str, object]) -> object:
    """A record without what may differ between two writers of the same pack, after a round trip through JSON."""
    return json.loads(json.dumps({key: record[key] for key in record.keys() - FILE_KEYS}))


def _shard_name(index: int) -> str:
    return f"{index:05d}.h5"


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
    """Write images, sorted by (role, name), as a pack.

    Returns:
        `path`, or the folder of shards when they fill more than one file.

    Raises:
        UsageError: a pack exists and `force` is not set.
        DataError: no images, a name twice or out of order, or the disk is full.
    """
    record = build_record("pack", PACK_FORMAT, command=command, facts={**(facts or {}), "dataset": dataset})
    with PackWriter(path, record=record, shard_bytes=shard_bytes, force=force) as writer:
        for image in images:
            writer.add(image)
        return writer.finish()
