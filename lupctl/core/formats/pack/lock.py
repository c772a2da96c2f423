"""Where a pack is kept while it is being written, and which process may write it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.system.disk.lock import held


def remove_leftovers(path: Path) -> None:
    """Remove what a writer that was killed at its very end left next to a complete pack.

    Args:
        path: the pack, ending in `.h5`.
    """
    folder, lock = part_folder(path), lock_path(path)
    if folder.is_dir() or lock.exists():
        with held(lock, remove=True) as is_ours:
            if not is_ours:
                return  # another process is making it again
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old_folder(path), ignore_errors=True)


def part_folder(path: Path) -> Path:
    """The folder for finished shards of an unfinished pack."""
    return path.with_name(f".{path.stem}.part")


def lock_path(path: Path) -> Path:
    """The lock file of the process that writes the pack; removed when the writer ends, unless it was killed."""
    return path.with_name(f".{path.stem}.lock")


def old_folder(path: Path) -> Path:
    """The folder that a pack is moved to just before another one replaces it."""
    return path.with_name(f".{path.stem}.old")


def set_aside(there: Path, old: Path) -> None:
    """Move a file or folder, if it exists, into `old`."""
    if there.exists():
        old.mkdir(exist_ok=True)
        there.replace(old / there.name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keep other processes from writing this pack; its folder has to exist.

    Raises:
        DataError: another process is writing it.
    """
    with held(lock_path(path), remove=True) as is_ours:
        if not is_ours:
            raise DataError(f"{path}: another process is packing it", hint="wait until it is done, or stop it")
        yield


def holds_only_shards(folder: Path) -> bool:
    """Whether a folder is a sharded pack; with anything else in it, it is not ours to replace."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return bool(entries) and all(entry.suffix == ".h5" for entry in entries)
