"""Reading a part of a file at a given offset, without a file position that threads would share."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

# Without this flag Windows would convert line ends; other systems do not have it.
READ_BYTES = os.O_RDONLY | (os.O_BINARY if hasattr(os, "O_BINARY") else 0)
# One per process: a lock that some thread held while another one forked would never be released in the child.
_locks: dict[int, threading.Lock] = {}


def open_to_read(path: Path | str) -> int:
    """The descriptor of a file opened for reading bytes; programs that are started do not inherit it.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, READ_BYTES)


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
