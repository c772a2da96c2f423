"""Crops in an LMDB, as LUPerson's and LUPerson-NL's published converters write them."""

import hashlib
import os
import re
import threading
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np

from lupctl.core.choices import JUNK
from lupctl.core.errors import CorruptImageError, DataError, FormatError
from lupctl.core.names import Names, NamesBuilder, build_names, sort_rows
from lupctl.core.sources.folder import describe_some
from lupctl.core.sources.lmdb_keys import KeyFile, Labels, find_key_file, read_key_file
from lupctl.core.sources.records import Listing
from lupctl.core.sources.tree import build_uniform

DATA_NAME: Final = "data.mdb"
# Values are JPEG files; the image folder that circulates has the same names, keys with this ending.
SUFFIX: Final = ".jpg"
# LUPerson-NL: video, person, frame, object.
NL_KEY = re.compile(r"\d{5}_(\d{6})_\d{7}_\d{2}")
TOLD: Final[dict[Labels, str]] = {
    "none": "no persons",
    "pids": "persons from its pids",
    "vids": "no persons; its vids are not kept, the keys name the videos",
    "persons in keys": "persons from the keys, as LUPerson-NL writes them",
}
# The library refuses to open a database twice in one process.
_environments: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()
_opening = threading.Lock()
HINT = "copy the database again; lupctl data pack DIR --keys none reads what is in it"


class LmdbSource:
    """The values of an LMDB; each is an encoded image.

    With persons (a dict with `pids`, or keys as LUPerson-NL writes them) images are for training, else unlabelled.
    The database is opened for reading alone, without locking, read-ahead and memory initialisation, once per process.

    Args:
        path: the database, a folder with data.mdb or a single file; or a folder with one such folder.
        dataset: the name the pack will carry.
        terms: terms of use, where they are known.
        keys: the key file, see `find_key_file`.

    Raises:
        DataError: there is no database, or its key file cannot be told.
    """

    def __init__(self, path: Path, *, dataset: str, terms: str = "", keys: str | None = None) -> None:
        self.path = find_database(path)
        self.dataset = dataset
        self.key_file = find_key_file(self.path, keys)
        self._terms = terms
        self._opening = threading.Lock()
        self._process = -1
        self._environment: Any = None
        self._local = threading.local()

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        return {
            "layout": "lmdb",
            "database": str(self.path),
            "keys": self.key_file.name if self.key_file else "none",
            "labels": self._labels,
            "terms": self._terms,
            "notes": [self._describe_keys()],
        }

    def digest(self, listing: Listing) -> tuple[str, int | None]:
        """Stands for the database by its size and time, and for keys and labels; with the database's bytes."""
        found = _data_file(self.path).stat()
        digest = hashlib.sha256(f"lmdb {found.st_size} {found.st_mtime_ns}\0".encode())
        digest.update(np.ascontiguousarray(listing.person).data)
        for part in build_names(listing.names).joined():
            digest.update(part)
        return f"sha256:{digest.hexdigest()}", found.st_size

    def list_images(self) -> Listing:
        """Every key, sorted, as a name ending in .jpg; no value is read.

        Raises:
            DataError: the key file asks for a global, or keys are no texts.
            FormatError: database or key file are damaged.
        """
        return self._listing

    def read(self, name: str) -> bytes:
        """The value of one key; may be called from several threads at once.

        Raises:
            CorruptImageError: the database has no such key.
            FormatError: the database is damaged.
        """
        try:
            get = self._local.get if self._process == os.getpid() else self._open_here()
        except AttributeError:  # the first read of this thread
            get = self._open_here()
        encoded: bytes | None = get(name[: -len(SUFFIX)].encode())
        if encoded is None:
            raise CorruptImageError(f"the LMDB has no key {name[: -len(SUFFIX)]}", hint=HINT)
        return encoded

    @cached_property
    def _keyed(self) -> KeyFile:
        if self.key_file is not None:
            return read_key_file(self.key_file)
        return KeyFile(self._walk(), "none", np.empty(0, np.int64))

    @cached_property
    def _labels(self) -> Labels:
        """Where persons come from, or that there are none."""
        keyed = self._keyed
        if keyed.labels == "none" and keyed.keys and all(map(NL_KEY.fullmatch, keyed.keys)):
            return "persons in keys"
        return keyed.labels

    @cached_property
    def _listing(self) -> Listing:
        keyed = self._keyed
        named = NamesBuilder()
        for key in keyed.keys:
            named.append(key + SUFFIX)
        names = named.build()
        order = sort_rows(names)
        names = names.take(order)
        match self._labels:
            case "pids":
                return build_uniform(names, keyed.numbers[order].data, "train")
            case "persons in keys":
                # The rule fixes where the digits stand.
                return build_uniform(names, (int(name[6:12]) for name in names), "train")
            case "none" | "vids":
                return build_uniform(names, repeat(JUNK), "unlabelled")

    def _describe_keys(self) -> str:
        count, entries = len(self._keyed.keys), self._num_entries
        origin = f"{count:,} keys of {self.key_file.name}" if self.key_file else "every key of the database"
        return f"{origin}, {entries:,} entries in the database; {TOLD[self._labels]}"

    @cached_property
    def _num_entries(self) -> int:
        self._open_here()
        return int(self._environment.stat()["entries"])

    def _walk(self) -> Names:
        self._open_here()
        keys = NamesBuilder()
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                try:
                    keys.append(bytes(key).decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}: holds a key that is no UTF-8 text ({bytes(key)[:40]!r})",
                        hint="name the keys to read with --keys FILE",
                    ) from error
        return keys.build()

    def _open_here(self) -> Any:
        """What reads a value in this thread; the database is opened once in each process."""
        lmdb = import_lmdb(self.path)
        with self._opening:
            if self._process != os.getpid():
                # What a fork brought along is let go first: a process has a database open once.
                self._local, self._environment = threading.local(), None
                self._environment = open_environment(lmdb, self.path)
                self._process = os.getpid()
        # A reading transaction sees a fixed state, and may be used by one thread at a time.
        self._local.get = self._environment.begin(buffers=False).get
        return self._local.get


def import_lmdb(path: Path) -> Any:
    """The package lmdb.

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


def open_environment(lmdb: Any, path: Path) -> Any:
    """A database, open for reading; the same object for all sources of this process that read it.

    Raises:
        FormatError: it is no LMDB, damaged, or cut short.
    """
    place = (os.getpid(), os.path.realpath(path))
    with _opening:
        environment = _environments.get(place)
        if environment is None:
            environment = _environments[place] = _open_environment(lmdb, path)
        return environment


def _open_environment(lmdb: Any, path: Path) -> Any:
    data = _data_file(path)
    try:
        environment = lmdb.open(
            os.fspath(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
        )
    except lmdb.Error as error:
        raise FormatError(f"{path}: no LMDB that can be read ({error})", hint="copy the database again") from error
    # Reading a page beyond the end of the file would end the process with a bus error.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if data.stat().st_size < needed:
        environment.close()
        message = f"{data}: cut short, {data.stat().st_size:,} of {needed:,} bytes"
        raise FormatError(message, hint="copy the database again")
    return environment


def _data_file(path: Path) -> Path:
    return path / DATA_NAME if path.is_dir() else path


def has_database(root: Path) -> bool:
    """Whether an LMDB lies in a folder or directly below it."""
    return bool(_databases(root))


def find_database(path: Path) -> Path:
    """The database a user means: a folder with data.mdb, the only such folder directly below it, or a single file.

    Raises:
        DataError: there is none, or more than one.
    """
    if path.is_file():
        return path.parent if path.name == DATA_NAME else path
    found = _databases(path) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    what = f"holds {len(found)} LMDBs: {describe_some(map(str, found))}" if found else f"holds no LMDB ({DATA_NAME})"
    raise DataError(f"{path}: {what}; one was expected", hint="name the folder that holds it")


def _databases(root: Path) -> list[Path]:
    if (root / DATA_NAME).is_file():
        return [root]
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and (folder / DATA_NAME).is_file())
