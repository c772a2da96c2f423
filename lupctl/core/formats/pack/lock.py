"""Where a pack lies while it is written, and who may write it."""

import fcntl
import os
import shutil
from pathlib import Path

from lupctl.core.errors import DataError


def remove_leftovers(path: Path) -> None:
    """Takes away what a writer killed in its last moment left beside a pack that is whole.

    Args:
        path: the pack, ending in `.h5`.
    """
    folder = part_place(path)
    if folder.is_dir():
        try:
            lock = lock_folder(folder, path)
        except DataError:
            return  # somebody is making it anew
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    shutil.rmtree(old_place(path), ignore_errors=True)


def part_place(path: Path) -> Path:
    """Where the finished shards of a pack wait."""
    return path.with_name(f".{path.stem}.part")


def old_place(path: Path) -> Path:
    """Where a pack goes that another is about to replace."""
    return path.with_name(f".{path.stem}.old")


def set_aside(there: Path, old: Path) -> None:
    """Moves a file or folder, if it is there, into `old`."""
    if there.exists():
        old.mkdir(exist_ok=True)
        there.replace(old / there.name)


def lock_folder(folder: Path, path: Path) -> int:
    """Claims the folder for this process; the system lets go of it when the process ends, however it ends.

    Returns:
        The number of the open folder; closing it lets go.

    Raises:
        DataError: another process has it.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DataError(
            f"{path}: is being packed by another process", hint="wait until it is done, or stop it"
        ) from error
    except OSError:
        pass  # some network disks have no locks; two writers at once are the user's affair there
    return lock


def holds_only_shards(folder: Path) -> bool:
    """Whether a folder is a sharded pack: what else may lie there is not ours to replace."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return bool(entries) and all(entry.suffix == ".h5" for entry in entries)
