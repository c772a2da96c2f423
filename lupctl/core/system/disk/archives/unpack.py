"""Unpacking untrusted archives: nothing outside the folder, no links, and a limit on how much comes out."""

import gzip
import lzma
import os
import re
import shutil
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lupctl.core.errors import DataError, FormatError, StoppedError
from lupctl.core.system.disk.archives.kinds import SUFFIXES, Kind, archive_kind, check_single_volume
from lupctl.core.system.disk.archives.members import Member, tar_members, zip_members
from lupctl.core.system.disk.atomic import disk_errors_named, sync_path
from lupctl.core.system.disk.reading import check_regular

COPY_BYTES = 1 << 20
# A record in an archive would replace, or stand for, the one that is written about it.
OWN_PREFIX = ".lupctl"
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Limits:
    """How much may come out of one archive; images hardly compress, so an archive that grows a lot holds none.

    Args:
        files: files and folders.
        num_bytes: bytes of all files together, as written.
        ratio: bytes written per byte of the archive, once `free_bytes` are written.
        free_bytes: below this many bytes the ratio is not checked.
    """

    files: int = 20_000_000
    num_bytes: int = 2**40
    ratio: float = 100.0
    free_bytes: int = 1 << 26


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked from an archive.

    Args:
        files: number of files.
        num_bytes: their bytes together.
        entries: names at the top, sorted.
    """

    files: int
    num_bytes: int
    entries: list[str]


def unpack(
    archive: Path,
    into: Path,
    *,
    limits: Limits | None = None,
    cancel: threading.Event | None = None,
    advance: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpacks an archive into a new folder, which appears when it is complete.

    Files get the times of the archive and this user's default permissions; names are not changed. A killed call leaves
    a folder `.<name>.unpacking` next to `into`, which the next call starts again.

    Args:
        archive: zip or tar, the latter also compressed.
        into: the folder to make.
        limits: how much may come out.
        cancel: set by another thread to stop.
        advance: called with the number of bytes written.

    Raises:
        FormatError: damaged, one volume of several, encrypted, beyond the limits; or with an entry that points
            outside, is a link or a device, or has the name of another, or of a file of lupctl.
        DataError: `into` exists, or the disk is full.
        StoppedError: `cancel` was set.
    """
    check_single_volume(archive)
    kind = archive_kind(archive.name)
    if kind is None:
        raise FormatError(f"{archive}: not an archive by its name", hint=f"known endings: {' '.join(SUFFIXES)}")
    if into.exists():
        raise DataError(f"{into}: exists already", hint="remove it")
    unfinished = into.with_name(f".{into.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        check_regular(archive)
        with disk_errors_named(into):
            unfinished.mkdir(parents=True)
            result = _Unpacking(archive, unfinished, limits or Limits(), cancel, advance).run(kind)
            unfinished.rename(into)
            sync_path(into.parent)
    except DAMAGE as error:
        raise _damaged(archive, kind, error) from error
    except RuntimeError as error:  # zipfile's error for encryption
        raise FormatError(f"{archive}: {error}", hint="unpack it by hand") from error
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.errno is None:
            raise _damaged(archive, kind, error) from error
        raise DataError(f"{archive}: cannot be unpacked ({error})", hint="check the file and the disk") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


class _Unpacking:
    """One archive being unpacked into one folder."""

    def __init__(
        self,
        archive: Path,
        folder: Path,
        limits: Limits,
        cancel: threading.Event | None,
        advance: Callable[[int], None] | None,
    ) -> None:
        self.archive, self.folder, self.limits = archive, folder, limits
        self.cancel, self.advance = cancel, advance
        self.packed_bytes = archive.stat().st_size
        self.num_files = self.num_entries = self.num_bytes = 0
        self.made: set[Path] = set()

    def run(self, kind: Kind) -> Unpacked:
        if kind == "zip":
            members = zip_members(self.archive)
        else:
            members = tar_members(self.archive, kind, check=self._check_decompressed)
        with closing(members):
            for member in members:
                self._stop_if_cancelled()
                self.num_entries += 1
                if self.num_entries > self.limits.files:
                    raise self._too_much(f"more than {self.limits.files:,} entries")
                self._write(member)
        return Unpacked(self.num_files, self.num_bytes, sorted(entry.name for entry in self.folder.iterdir()))

    def _write(self, member: Member) -> None:
        parts = self._safe_parts(member.name)
        if not parts:
            return  # the folder itself, which tar names "./"
        path = self.folder.joinpath(*parts)
        try:
            self._make_folder(path if member.is_folder else path.parent)
            if member.is_folder:
                return
            # "x" because a second entry of the same name would silently replace the first.
            with member.open() as stream, path.open("xb") as out:
                while chunk := stream.read(COPY_BYTES):
                    self._stop_if_cancelled()
                    self._count(len(chunk))
                    out.write(chunk)
        except (FileExistsError, NotADirectoryError) as error:
            raise FormatError(
                f"{self.archive}: holds {member.name!r} twice; names have to be unique", hint="unpack it by hand"
            ) from error
        self.num_files += 1
        os.utime(path, (member.changed_at, member.changed_at))

    def _make_folder(self, folder: Path) -> None:
        if folder not in self.made:  # saves a system call per file
            folder.mkdir(parents=True, exist_ok=True)
            self.made.add(folder)

    def _count(self, num_bytes: int) -> None:
        """Counts the bytes that came out, and refuses too many; sizes claimed in headers are not trusted."""
        self.num_bytes += num_bytes
        if self.num_bytes > self.limits.num_bytes:
            raise self._too_much(f"more than {self.limits.num_bytes:,} bytes")
        if self.num_bytes > max(self.limits.free_bytes, self.limits.ratio * self.packed_bytes):
            raise self._too_much(f"more than {self.limits.ratio:g} times its own {self.packed_bytes:,} bytes")
        if self.advance is not None:
            self.advance(num_bytes)

    def _check_decompressed(self, num_bytes: int) -> None:
        # Headers, padding and skipped data come out of the decompressor too.
        if num_bytes > 2 * max(self.limits.free_bytes, self.limits.ratio * self.packed_bytes):
            raise self._too_much(f"more than {2 * self.limits.ratio:g} times its own {self.packed_bytes:,} bytes")

    def _safe_parts(self, name: str) -> tuple[str, ...]:
        """The parts of a name, which has to stay inside the folder."""
        path = PurePosixPath(name)
        if path.is_absolute() or re.match(r"[A-Za-z]:", name):
            what = "an absolute path"
        elif ".." in path.parts:
            what = "a path that leads outside"
        elif "\0" in name:
            what = "a name with a zero byte"
        elif any(part.casefold().startswith(OWN_PREFIX) for part in path.parts):
            what = "a name that lupctl keeps for its own records"
        else:
            return path.parts
        raise FormatError(
            f"{self.archive}: holds {name!r}, {what}; nothing was unpacked", hint="do not unpack this archive"
        )

    def _stop_if_cancelled(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise StoppedError("stopped on request", hint="type the same command again")

    def _too_much(self, what: str) -> FormatError:
        return FormatError(
            f"{self.archive}: unpacks to {what}; nothing was unpacked",
            hint="inspect it by hand; images hardly compress",
        )


def _damaged(archive: Path, kind: Kind, error: Exception) -> FormatError:
    with archive.open("rb") as stream:
        begin = stream.read(512).lstrip().lower()
    what = "it is a web page" if begin.startswith((b"<!doctype html", b"<html")) else str(error) or "it ends too early"
    return FormatError(f"{archive}: damaged, or not a {kind} archive ({what})", hint="remove it and download it again")
