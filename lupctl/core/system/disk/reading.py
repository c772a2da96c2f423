"""Opening regular files alone, and reading a part of one without a file position that threads would share."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lupctl.core.errors import DataError
from lupctl.core.system.disk.limits import Limit

# Without O_BINARY Windows would convert line ends; elsewhere O_NONBLOCK keeps a FIFO from waiting for its writer, and
# means nothing to a regular file.
READ_BYTES = os.O_RDONLY | (os.O_BINARY if hasattr(os, "O_BINARY") else os.O_NONBLOCK)
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# One per process: a lock that some thread held while another one forked would never be released in the child.
_locks: dict[int, threading.Lock] = {}


class SpecialFileError(OSError):
    """Something other than a regular file, which could block a reader, or never end."""


def open_to_read(path: Path | str) -> int:
    """The descriptor of a regular file opened for reading bytes; programs that are started do not inherit it.

    Raises:
        SpecialFileError: it is a folder, a FIFO, a socket or a device, or a link to one.
        OSError: it cannot be opened.
    """
    file = os.open(path, READ_BYTES)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    raise special_file(path, mode)


def special_file(path: Path | str, mode: int) -> SpecialFileError:
    """The error for a path that is no regular file, given its mode."""
    kind = next((name for is_kind, name in KINDS if is_kind(mode)), "of an unknown kind")
    return SpecialFileError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def check_regular(path: Path) -> None:
    """For files that a library opens by their names.

    Raises:
        SpecialFileError: as `open_to_read`.
        OSError: there is none, or its folder cannot be searched.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise special_file(path, mode)


def open_stream(path: Path) -> BinaryIO:
    """A regular file as a stream of bytes.

    Raises:
        OSError: as `open_to_read`.
    """
    return os.fdopen(open_to_read(path), "rb")


def read_whole(path: Path, limit: Limit) -> bytes:
    """The bytes of a foreign file that is not larger than a limit.

    Raises:
        DataError: it cannot be read, is no regular file, or is larger; nothing of it is read then.
    """
    try:
        with open_stream(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            limit.check(path, size)
            return stream.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error


def seek_and_read(file: int, length: int, offset: int) -> bytes:
    """`os.pread` for systems without it; not for a file whose position other code changes at the same time.

    Args:
        file: number of an open file.
        length: most bytes to read.
        offset: of the first one, from the start of the file.
    """
    with _locks.setdefault(os.getpid(), threading.Lock()):
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, length)


# The function itself and not a wrapper: one more call is noticeable when millions of small images are read.
read_at: Callable[[int, int, int], bytes] = os.pread if hasattr(os, "pread") else seek_and_read
