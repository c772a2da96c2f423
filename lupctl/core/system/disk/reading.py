"""Reading a part of a file at a given place, without a file position that threads would share."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

# Windows would turn line ends unless it is told not to; elsewhere there is no such flag.
READ_BYTES = os.O_RDONLY | (os.O_BINARY if hasattr(os, "O_BINARY") else 0)
# One per process: a lock that some thread held while another one forked would never be free in the child.
_locks: dict[int, threading.Lock] = {}


def open_to_read(path: Path | str) -> int:
    """The number of a file opened for reading bytes; it is not handed on to programs that are started.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, READ_BYTES)


def seek_and_read(file: int, length: int, offset: int) -> bytes:
    """What `os.pread` does, for systems that have none; a file that others move in at the same time is not for this.

    Args:
        file: number of an open file.
        length: most bytes wanted.
        offset: of the first one, from the file's begin.
    """
    with _locks.setdefault(os.getpid(), threading.Lock()):
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, length)


# The function itself and not one around it: a call more is felt where millions of small images are read.
read_at: Callable[[int, int, int], bytes] = os.pread if hasattr(os, "pread") else seek_and_read
