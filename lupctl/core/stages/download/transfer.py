"""What all ways of fetching a file share: patience, stopping, a bar in MiB, and a disk that fills up."""

import errno
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.errors import DataError, StoppedError
from lupctl.core.system.progress.lines import Task

MIB = 1 << 20


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Args:
        attempts: that may fail in a row; one that brought new bytes begins the count anew.
        first_wait_s: before the second attempt; doubles with each.
        most_wait_s: the longest pause, also when the server asks for a longer one.
        timeout_s: without a byte from the server.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    timeout_s: float = 20.0

    def wait_s(self, failures: int) -> float:
        """The pause behind so many failures in a row, 1 or more."""
        return min(self.first_wait_s * 2.0 ** (failures - 1), self.most_wait_s)


class ByteBar:
    """One bar in MiB for several files that are fetched at once; what there is to fetch turns up as servers tell it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._grown = self._advanced = 0

    def grow(self, num_bytes: int) -> None:
        """So many bytes more are to come."""
        with self._lock:
            before = self._grown // MIB
            self._grown += num_bytes
            self._task.grow(self._grown // MIB - before)

    def advance(self, num_bytes: int) -> None:
        """So many bytes have come; fewer than none when a file has to be begun again."""
        with self._lock:
            before = self._advanced // MIB
            self._advanced += num_bytes
            self._task.advance(self._advanced // MIB - before)


def stopped() -> StoppedError:
    """What to raise when someone asked to stop; the command line says how it was asked."""
    return StoppedError("stopped on request; what was fetched is kept", hint="type the same command again")


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns a full disk into one line; what was written stays.

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
    """What the disk under a path, which need not exist, has left."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free


def check_space(path: Path, *, needed: int) -> None:
    """Refuses before the first byte what cannot fit.

    Raises:
        DataError: the disk has less than `needed` bytes.
    """
    free = free_bytes(path)
    if needed > free:
        raise DataError(
            f"{path}: needs {needed / MIB:,.0f} MiB, the disk has {free / MIB:,.0f} MiB free",
            hint="free some space, or name another place with --home",
        )


def innermost_reason(error: BaseException) -> str:
    """The innermost reason of a library's nested errors, in few words."""
    while True:
        inner = next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None)
        inner = inner or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return str(error).rpartition(">: ")[2] or type(error).__name__
        error = inner
