"""Fetches a large file from the disk before it is read."""

import os
from pathlib import Path

from lupctl.core.system.disk.reading import open_to_read

# Maximum fetched and not yet read: keeps both an SSD that answers after 0.1 ms and a spinning disk busy.
WINDOW_BYTES = 2**26
# How far the reader moves before more is requested.
STEP_BYTES = 2**23
# Linux fetches no more than this per request (`read_ahead_kb`, by default), however much was requested.
REQUEST_BYTES = 2**17


class ReadAhead:
    """Requests the next parts of a file from the system while its reader moves through it from start to end.

    Never waits for the disk, and requests nothing twice. Does nothing on a system without `posix_fadvise`.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._requested = 0  # bytes from the start of the file

    def move(self, share: float) -> None:
        """Call it when the reader is at this share of the file, 0 to 1."""
        at = int(share * self._size)
        if not hasattr(os, "posix_fadvise") or self._requested > min(at + WINDOW_BYTES - STEP_BYTES, self._size - 1):
            return
        # A reader may start in the middle, for example after a resume.
        begin = max(self._requested, at // REQUEST_BYTES * REQUEST_BYTES)
        self._requested = (at + WINDOW_BYTES) // REQUEST_BYTES * REQUEST_BYTES
        descriptor = open_to_read(self._path)
        try:
            for start in range(begin, min(self._requested, self._size), REQUEST_BYTES):
                os.posix_fadvise(descriptor, start, REQUEST_BYTES, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
