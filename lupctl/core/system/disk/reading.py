"""Opening regular files alone, and reading a part of one without a file position that threads would share."""

import errno
import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

from lupctl.core.system.disk.limits import Limit

# Without O_BINARY Windows would convert line ends; elsewhere O_NONBLOCK keeps a FIFO from waiting for its writer, and
# means nothing to a regular file.
READ_BYTES = os.O_RDONLY
if hasattr(os, "O_BINARY"):
    READ_BYTES |= os.O_BINARY
elif hasattr(os, "O_NONBLOCK"):
    READ_BYTES |= os.O_NONBLOCK
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


def say_missing(path: Path) -> str:
    """What is the case where no regular file is: there is none, or something else is there.

    >>> say_missing(Path("no-such-folder/a.h5"))
    'there is no such file'
    >>> say_missing(Path("/"))
    'a folder, not a regular file'
    """
    try:
        return str(special_file(path, path.stat().st_mode).strerror)
    except OSError:  # none, or a link to none
        return "there is no such file"


def check_regular(path: Path) -> None:
    """For files that a library opens by their names.

    Raises:
        SpecialFileError: as `open_to_read`.
        OSError: there is none, or its folder cannot be searched.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise special_file(path, mode)


def open_stream(path: Path, limit: Limit | None = None) -> BinaryIO:
    """A regular file as a stream of bytes.

    Raises:
        OSError: as `open_to_read`.
        DataError: it is larger than a limit; nothing of it is read.
    """
    stream = os.fdopen(open_to_read(path), "rb")
    try:
        if limit is not None:
            limit.check(path, os.fstat(stream.fileno()).st_size)
    except BaseException:
        stream.close()
        raise
    return stream


def open_text(path: Path, limit: Limit | None, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """The same as text, with line ends as `open` has them.

    Raises:
        OSError, DataError: as `open_stream`.
    """
    return io.TextIOWrapper(open_stream(path, limit), encoding=encoding, newline=newline)


def read_bytes(path: Path, limit: Limit) -> bytes:
    """The content of a foreign file.

    Raises:
        OSError, DataError: as `open_stream`.
    """
    with open_stream(path, limit) as stream:
        return stream.read()


def read_text(path: Path, limit: Limit, *, encoding: str = "utf-8") -> str:
    """The same as text.

    Raises:
        OSError, DataError: as `open_stream`.
        UnicodeDecodeError: it is not text.
    """
    with open_text(path, limit, encoding=encoding) as stream:
        return stream.read()


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
