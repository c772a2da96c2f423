"""Finds and opens an LMDB."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from lupctl.core.data.sources.folder import list_folders
from lupctl.core.data.sources.layouts.lmdb_pages import HINT, check_pages
from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.examples import name_some

DATA_NAME: Final = "data.mdb"
# The library refuses to open a database twice in one process.
_environments: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()
_opening = threading.Lock()


def import_lmdb(path: Path) -> Any:
    """The lmdb package.

    Raises:
        DataError: it is not installed.
    """
    try:
        import lmdb  # an extra: only this layout needs it
    except ImportError as error:
        raise DataError(
            f"{path}: reading an LMDB needs the package lmdb, which is not installed", hint="pip install 'lupctl[lmdb]'"
        ) from error
    return lmdb


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns the library's error about damaged pages into one line that names the database.

    Raises:
        FormatError: the database is damaged.
    """
    lmdb = import_lmdb(path)
    try:
        yield
    except lmdb.Error as error:
        raise FormatError(f"{path}: damaged LMDB ({error})", hint=HINT) from error


def open_environment(lmdb: Any, path: Path) -> Any:
    """A database, opened for reading; all sources of this process that read it share one object.

    Raises:
        FormatError: it is not an LMDB, or is damaged or cut short.
    """
    key = (os.getpid(), os.path.realpath(path))
    with _opening:
        environment = _environments.get(key)
        if environment is None:
            environment = _environments[key] = _open_environment(lmdb, path)
        return environment


def _open_environment(lmdb: Any, path: Path) -> Any:
    try:
        check_pages(data_file(path))
        return lmdb.open(
            os.fspath(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error
    except lmdb.Error as error:
        raise FormatError(f"{path}: not a readable LMDB ({error})", hint=HINT) from error


def data_file(path: Path) -> Path:
    """The one file of a database, given its folder or the file itself."""
    return path / DATA_NAME if path.is_dir() else path


def has_database(root: Path) -> bool:
    """Whether an LMDB is in a folder or directly below it."""
    return bool(_databases(root))


def find_database(path: Path) -> Path:
    """The database at a path: a folder with data.mdb, the only such folder directly below it, or a single file.

    Raises:
        DataError: there is none, or more than one.
    """
    if path.is_file():
        return path.parent if path.name == DATA_NAME else path
    found = _databases(path) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    what = f"contains {len(found)} LMDBs: {name_some(found)}" if found else f"contains no LMDB ({DATA_NAME})"
    raise DataError(f"{path}: {what}; one was expected", hint="name the folder that contains it")


def _databases(root: Path) -> list[Path]:
    if (root / DATA_NAME).is_file():
        return [root]
    return [folder for folder in list_folders(root) if (folder / DATA_NAME).is_file()]
