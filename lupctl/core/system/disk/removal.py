"""Removing files and folders so that a killed removal leaves nothing that looks whole, and no link is followed."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lupctl.core.system.disk.atomic import disk_errors_named

ASIDE = ".lupctl-removed"


def remove_tree(path: Path) -> None:
    """Removes a file, a folder with all in it, or a link; what a link names stays. Does nothing if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def remove_aside(paths: Sequence[Path], name: str) -> None:
    """Removes what is next to each other: first out of the way under a hidden name, then for good.

    Killed in between, it leaves a hidden folder `.NAME.lupctl-removed` that nothing reads; `remove_leftovers` takes it.

    Args:
        paths: in one folder; what is named first is moved first. Absent ones are passed over.
        name: of the whole.

    Raises:
        DataError: the disk refuses.
    """
    for path in paths:
        aside = path.with_name(f".{name}{ASIDE}")
        with disk_errors_named(path):
            if not (path.is_symlink() or path.exists()):
                continue
            aside.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                remove_tree(aside / path.name)
            path.rename(aside / path.name)
    for aside in {path.with_name(f".{name}{ASIDE}") for path in paths}:
        with disk_errors_named(aside):
            remove_tree(aside)


def remove_leftovers(folder: Path) -> None:
    """Removes what removals that were killed left in a folder."""
    for aside in folder.glob(f".*{ASIDE}"):
        with suppress(OSError):  # another removal is at it
            remove_tree(aside)


def count_bytes(path: Path) -> int:
    """Bytes of a file, or of everything in a folder; a link counts as itself."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(below.lstat().st_size for below in path.rglob("*") if below.is_symlink() or not below.is_dir())
