"""Where a pack lies while it is written, and who may write it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.system.disk.lock import held


def remove_leftovers(path: Path) -> None:
    """Takes away what a writer killed in its last moment left beside a pack that is whole.

    Args:
        path: the pack, ending in `.h5`.
    """
    folder, lock = part_place(path), lock_place(path)
    if folder.is_dir() or lock.exists():
        with held(lock, remove=True) as is_ours:
            if not is_ours:
                return  # somebody is making it anew
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old_place(path), ignore_errors=True)


def part_place(path: Path) -> Path:
    """Where the finished shards of a pack wait."""
    return path.with_name(f".{path.stem}.part")


def lock_place(path: Path) -> Path:
    """The file that whoever writes the pack holds; it goes when the writer ends, unless that was killed."""
    return path.with_name(f".{path.stem}.lock")


def old_place(path: Path) -> Path:
    """Where a pack goes that another is about to replace."""
    return path.with_name(f".{path.stem}.old")


def set_aside(there: Path, old: Path) -> None:
    """Moves a file or folder, if it is there, into `old`."""
    if there.exists():
        old.mkdir(exist_ok=True)
        there.replace(old / there.name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keeps other processes from writing this pack; its folder has to exist.

    Raises:
        DataError: another process writes it.
    """
    with held(lock_place(path), remove=True) as is_ours:
        if not is_ours:
            raise DataError(f"{path}: is being packed by another process", hint="wait until it is done, or stop it")
        yield


def holds_only_shards(folder: Path) -> bool:
    """Whether a folder is a sharded pack: what else may lie there is not ours to replace."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return bool(entries) and all(entry.suffix == ".h5" for entry in entries)
