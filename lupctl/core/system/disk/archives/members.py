"""The entries of an archive, one after another; links and devices are refused."""

import bz2
import calendar
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from lupctl.core.errors import FormatError
from lupctl.core.system.disk.archives.kinds import Kind

SKIP_BYTES = 1 << 20
# The largest part of a tar that is not file content, a name or an extended header, is a few KiB.
MOST_HEADER_BYTES = 1 << 24


@dataclass(frozen=True)
class Member:
    """One entry.

    Args:
        name: as stored, `/` between parts; not to be trusted.
        is_folder: a folder; else a plain file.
        changed_at: seconds since 1970; a zip's clock is taken as UTC.
        open: opens the content.
    """

    name: str
    is_folder: bool
    changed_at: int
    open: Callable[[], IO[bytes]]


def zip_members(archive: Path) -> Generator[Member, None, None]:
    """Every entry of a zip. A backslash separates folders, as some programs write it.

    Raises:
        FormatError: a link or a device.
        RuntimeError: encrypted.
        zipfile.BadZipFile: damaged.
    """
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unwanted(archive, info.filename, "link" if mode == stat.S_IFLNK else "device")
            if info.flag_bits & 1:
                raise RuntimeError(f"{info.filename} is encrypted")
            year, month, day, *clock = info.date_time  # month and day are 0 where the writer had no clock
            changed_at = calendar.timegm((year, min(max(month, 1), 12), max(day, 1), *clock))
            yield Member(info.filename.replace("\\", "/"), info.is_dir(), changed_at, partial(opened.open, info))


def tar_members(archive: Path, kind: Kind, *, check: Callable[[int], None]) -> Generator[Member, None, None]:
    """Every entry of a tar; each has to be read before the next is requested.

    Args:
        archive: the file.
        kind: how it is compressed.
        check: called with the number of bytes decompressed so far, headers included; raises when there are too many.

    Raises:
        FormatError: a link or a device.
        tarfile.TarError: damaged, or without its end marker.
    """
    count = 0
    with _open_stream(archive, kind) as stream:
        counted = _Forward(stream, check)
        with tarfile.open(fileobj=counted, mode="r:") as opened:
            while (info := opened.next()) is not None:
                count += 1
                opened.members = []  # type: ignore[attr-defined]  # a kilobyte each, and there may be millions
                if info.issym() or info.islnk():
                    raise _unwanted(archive, info.name, "link")
                if not (info.isreg() or info.isdir()):
                    raise _unwanted(archive, info.name, "device")
                changed_at = min(max(int(info.mtime), 0), 2**33)
                yield Member(info.name, info.isdir(), changed_at, partial(_tar_content, opened, info))
        if counted.last_block != bytes(tarfile.BLOCKSIZE):
            # tarfile takes a damaged or missing header for the end.
            raise tarfile.ReadError(f"cut short or damaged after entry {count:,}")
        while counted.read(SKIP_BYTES):
            pass  # padding, and after it the checksum of gzip and the like


class _Forward(io.BufferedIOBase):
    """A decompressed stream that tarfile may read and skip forward in, and that counts its bytes."""

    def __init__(self, stream: IO[bytes], check: Callable[[int], None]) -> None:
        super().__init__()
        self._stream, self._check = stream, check
        self._position = 0
        self.last_block = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last_block = self._stream.read(size)
        self._position += len(self.last_block)
        self._check(self._position)
        return self.last_block

    def seek(self, position: int, whence: int = 0, /) -> int:
        if whence != 0 or position < self._position:
            raise tarfile.ReadError("its parts overlap")
        while self._position < position and self.read(min(position - self._position, SKIP_BYTES)):
            pass
        return self._position


def _tar_content(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(info)
    assert content is not None, "only files are asked for"
    return content


def _open_stream(archive: Path, kind: Kind) -> IO[bytes]:
    match kind:
        case "tar.gz":
            return cast(IO[bytes], gzip.open(archive))
        case "tar.bz2":
            return bz2.open(archive)
        case "tar.xz":
            return lzma.open(archive)
        case _:
            return archive.open("rb")


def _unwanted(archive: Path, name: str, what: str) -> FormatError:
    return FormatError(
        f"{archive}: holds {name!r}, a {what}; plain files and folders were expected, nothing was unpacked",
        hint="do not unpack this archive",
    )
