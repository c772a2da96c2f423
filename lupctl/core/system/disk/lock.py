"""A file that one process at a time holds; the system frees it when that process ends, however it ends.

The file is empty and means nothing by itself: one left over from a killed process is free, and may be removed.
"""

import functools
import glob
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

# A file that was removed between opening and locking it is opened again; some network disks report another inode number
# each time, which would look like that for ever.
TRIES = 10
# Sharers hold the file itself only while they register; many of them may do so at once.
GATE_S, GATE_POLL_S = 2.0, 0.01
# Open lock files of this process.
_held: set[int] = set()


@contextmanager
def held(path: Path, *, remove: bool = False) -> Iterator[bool]:
    """Holds a lock file for the duration of the block; the value is whether it was free.

    If the disk does not support locks, as with some network disks, it always was: the user then has to prevent two
    processes at once, and `lupctl doctor` says so.

    Args:
        path: the file, in a folder that exists; created if missing.
        remove: removes the file at the end; else it stays, empty.

    Raises:
        OSError: the file cannot be created.
    """
    lock = _take(path)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        _release(lock, path if remove else None)


@contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """As `held`, for a file that others may hold with `held_shared`: it is free only if no one shares it either."""
    with held(path) as is_free:
        if is_free and not _is_shared(path):
            yield True
            return
    yield False


@contextmanager
def held_shared(path: Path) -> Iterator[bool]:
    """Shares a lock file with other callers of this function, but not with one that holds it alone.

    Each sharer holds its own file next to `path`.
    """
    own = path.with_name(f"{path.name}.shared-{secrets.token_hex(8)}")
    end = time.monotonic() + GATE_S
    lock = None
    while lock is None and time.monotonic() < end:
        with held(path) as is_free:
            if is_free:
                lock = _take(own)
        if lock is None:
            time.sleep(GATE_POLL_S)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        _release(lock, own)


def check_locks(folder: Path) -> None:
    """Tries a lock in a folder.

    Raises:
        OSError: the folder's disk does not support locks.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        lock_descriptor(file.fileno(), blocking=False)


def _is_shared(path: Path) -> bool:
    for own in path.parent.glob(f"{glob.escape(path.name)}.shared-*"):
        with held(own, remove=True) as is_free:
            if not is_free:
                return True
    return False


def _take(path: Path) -> int | None:
    """The open file, locked; None if another process, or another part of this one, holds it."""
    _close_in_children()
    for attempt in range(TRIES):
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(lock)
        try:
            is_free = lock_descriptor(lock, blocking=False)
        except OSError:
            return lock  # no locks on this disk
        if is_free and (_is_at(lock, path) or attempt == TRIES - 1):
            return lock
        _release(lock, None)
        if not is_free:
            return None
    raise AssertionError("the last try returns")


def _is_at(lock: int, path: Path) -> bool:
    """Whether the open file still has its name: its last holder may have removed it just before it was locked."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _release(lock: int, removed: Path | None) -> None:
    if lock not in _held:
        return  # a forked child leaves its parent's block; by now the number may be another file's
    _held.remove(lock)
    if removed is not None and os.name != "nt":
        # Before the lock is free: the next holder's file is not ours to remove. `_is_at` covers those who have it open.
        removed.unlink(missing_ok=True)
    # Closing alone is not enough: a child forked just before the lock was noted still has the file open.
    with suppress(OSError):
        unlock_descriptor(lock)
    os.close(lock)
    if removed is not None and os.name == "nt":
        with suppress(OSError):  # Windows does not remove a file that is open elsewhere
            removed.unlink(missing_ok=True)


@functools.cache
def _close_in_children() -> None:
    """Makes forked children close their copies of held files; else they keep the locks of a killed parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_copies)


def _close_copies() -> None:
    for lock in _held:
        with suppress(OSError):
            os.close(lock)
    _held.clear()
