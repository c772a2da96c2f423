"""Common parts of all ways to fetch a file: retries, stopping, a bar in MiB, and disks that fill up."""

import errno
import math
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.errors import DataError, StoppedError
from lupctl.core.system.progress.lines import Task

MIB = 1 << 20
# A modem of 56 kbit/s is faster.
FREE_S, SLOWEST_BYTES = 3600.0, 1 << 12


@dataclass(frozen=True)
class Patience:
    """How often and how long to try.

    Args:
        attempts: number of failures in a row that end the download; new bytes reset the count.
        first_wait_s: pause before the second attempt; doubles with each further one.
        most_wait_s: the longest pause, even if the server asks for a longer one.
        timeout_s: longest time without a byte from the server.
        whole_s: longest time for a whole file; None for an hour, and a second more for every `SLOWEST_BYTES` of it.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    timeout_s: float = 20.0
    whole_s: float | None = None

    def wait_s(self, failures: int) -> float:
        """The pause after a number of failures in a row, 1 or more."""
        return min(self.first_wait_s * 2.0 ** (failures - 1), self.most_wait_s)


class Stopwatch:
    """How long a file has taken, and whether that is too long: some servers send a byte a second for ever.

    Args:
        name: of the file, for the error.
        patience: how long it may take.
    """

    def __init__(self, name: str, patience: Patience) -> None:
        self._name, self._whole_s = name, patience.whole_s
        self._started_at = time.monotonic()

    def check(self, num_bytes: int) -> None:
        """Refuses to wait any longer.

        Args:
            num_bytes: of the whole file, or what has arrived of it where the server does not say.

        Raises:
            DataError: it has taken too long.
        """
        limit = FREE_S + num_bytes / SLOWEST_BYTES if self._whole_s is None else self._whole_s
        taken = time.monotonic() - self._started_at
        if taken > limit:
            raise DataError(
                f"{self._name}: not complete after {taken:,.0f} s; what was fetched is kept",
                hint=f"type the same command again, it continues; --timeout {2 * math.ceil(limit)} waits longer",
            )


class ByteBar:
    """One bar in MiB for several concurrent downloads; its total grows as servers report the sizes."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._grown = self._advanced = 0

    def grow(self, num_bytes: int) -> None:
        """Add bytes to the total."""
        with self._lock:
            before = self._grown // MIB
            self._grown += num_bytes
            self._task.grow(self._grown // MIB - before)

    def advance(self, num_bytes: int) -> None:
        """Count bytes as fetched; negative when a file has to be started again."""
        with self._lock:
            before = self._advanced // MIB
            self._advanced += num_bytes
            self._task.advance(self._advanced // MIB - before)


def stopped() -> StoppedError:
    """The error to raise after a request to stop; the command line adds how it was requested."""
    return StoppedError("stopped on request; what was fetched is kept", hint="type the same command again")


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn a full disk into a one-line error; what was written stays.

    Raises:
        DataError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        size = path.stat().st_size if path.is_file() else 0
        raise DataError(
            f"{path}: the disk is full ({free_bytes(path) / MIB:,.0f} MiB free); the first {size:,} bytes are kept",
            hint="free some space, then type the same command again",
        ) from error


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of a path, which need not exist."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free


def check_space(path: Path, *, needed: int) -> None:
    """Fail before the first byte if the file cannot fit.

    Raises:
        DataError: the disk has less than `needed` bytes.
    """
    free = free_bytes(path)
    if needed > free:
        raise DataError(
            f"{path}: needs {needed / MIB:,.0f} MiB, the disk has {free / MIB:,.0f} MiB free",
            hint="free some space, or choose another location with --home",
        )


def innermost_reason(error: BaseException) -> str:
    """A short text of the innermost cause in a library's nested errors."""
    while True:
        inner = next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None)
        inner = inner or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return str(error).rpartition(">: ")[2] or type(error).__name__
        error = inner
