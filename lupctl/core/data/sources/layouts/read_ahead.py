"""Fetching a large file from the disk before somebody reads it."""

import os
from pathlib import Path

from lupctl.core.system.disk.reading import open_to_read

# What is fetched and not yet read, at most. A disk that answers after 0.1 ms and one that spins are both kept busy.
WINDOW_BYTES = 2**26
# How far the reader moves before more is asked for.
STEP_BYTES = 2**23
# Linux fetches no more than this for one request (`read_ahead_kb`, by default), however much was asked for.
REQUEST_BYTES = 2**17


class ReadAhead:
    """Asks the system for the next parts of a file while its reader moves through it from begin to end.

    Nothing waits for the disk here, and nothing is asked for twice. Does nothing where the system cannot be asked.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._asked = 0  # bytes from the file's begin

    def move(self, share: float) -> None:
        """The reader is at this share of the file, 0 to 1."""
        at = int(share * self._size)
        if not hasattr(os, "posix_fadvise") or self._asked > min(at + WINDOW_BYTES - STEP_BYTES, self._size - 1):
            return
        # A reader may begin in the middle, as after a resume.
        begin = max(self._asked, at // REQUEST_BYTES * REQUEST_BYTES)
        self._asked = (at + WINDOW_BYTES) // REQUEST_BYTES * REQUEST_BYTES
        descriptor = open_to_read(self._path)
        try:
            for start in range(begin, min(self._asked, self._size), REQUEST_BYTES):
                os.posix_fadvise(descriptor, start, REQUEST_BYTES, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
