"""Crops in an LMDB, as LUPerson's and LUPerson-NL's published converters write them."""

import hashlib
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from lupctl.core.choices import JUNK
from lupctl.core.data.sources.layouts.lmdb_files import (
    damage_named,
    data_file,
    find_database,
    import_lmdb,
    open_environment,
)
from lupctl.core.data.sources.layouts.lmdb_keys import KeyFile, Labels, find_key_file, read_key_file
from lupctl.core.data.sources.layouts.read_ahead import ReadAhead
from lupctl.core.data.sources.tree import build_uniform
from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.strings import (
    BLOCK_NAMES,
    StringColumn,
    StringColumnBuilder,
    find_falls,
    sort_rows,
)

# Values are JPEG files; the image folder in circulation has the same names: keys with this suffix.
SUFFIX: Final = ".jpg"
# LUPerson-NL: video, person, frame, object.
NL_KEY = re.compile(r"\d{5}_(\d{6})_\d{7}_\d{2}")
LABEL_NOTES: Final[dict[Labels, str]] = {
    "none": "no persons",
    "pids": "persons from its pids",
    "vids": "no persons; its vids are not kept, the keys name the videos",
    "persons in keys": "persons from the keys, as LUPerson-NL writes them",
}
HINT = "copy the database again; or pack what is in it: lupctl data pack DIR --keys none"


@dataclass(frozen=True)
class _Listed:
    """The images in the database, and where their persons come from, if any."""

    samples: Samples
    labels: Labels


class LmdbSource:
    """The values of an LMDB; each is an encoded image.

    Images with persons (a dict with `pids`, or keys as LUPerson-NL writes them) are for training, others unlabelled.
    The database is opened read-only, without locking, read-ahead and memory initialisation, once per process.

    Args:
        path: the database, a folder with data.mdb or a single file; or a folder that contains one such folder.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
        keys: the key file, see `find_key_file`.

    Raises:
        DataError: there is no database, or its key file is missing or ambiguous.
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
            "labels": self._listed.labels,
            "terms": self._terms,
            "notes": [self._describe_keys()],
        }

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """A digest of the database's size and time and of keys and labels, and the size in bytes."""
        found = data_file(self.path).stat()
        digest = hashlib.sha256(f"lmdb {found.st_size} {found.st_mtime_ns}\0".encode())
        digest.update(np.ascontiguousarray(samples.person).data)
        for part in samples.name.joined():
            digest.update(part)
        return f"sha256:{digest.hexdigest()}", found.st_size

    def list_images(self) -> Samples:
        """Every key, sorted, as a name ending in .jpg; no value is read.

        Raises:
            DataError: the key file asks for a global, or keys are not text.
            FormatError: the database or the key file is damaged.
        """
        return self._listed.samples

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
        try:
            encoded: bytes | None = get(name[: -len(SUFFIX)].encode())
        except Exception:
            with damage_named(self.path):  # entered on failure only: it costs as much as reading
                raise
        if encoded is None:
            raise CorruptImageError(f"the LMDB has no key {name[: -len(SUFFIX)]}", hint=HINT)
        return encoded

    def read_block(self, begin: int, end: int) -> list[memoryview] | None:
        """The values of rows `begin` to `end - 1` of the list, as views of the database's mapped file.

        Returns:
            None if the database lacks one of the keys.

        Raises:
            FormatError: the database is damaged.
        """
        if self._process != os.getpid():
            self._open_here()
        transaction = getattr(self._local, "mapped", None)
        if transaction is None:
            transaction = self._local.mapped = self._environment.begin(buffers=True)
        names = next(self._listed.samples.name[begin:end].encoded_blocks(end - begin))
        with damage_named(self.path):
            values: list[memoryview | None] = list(map(transaction.get, [name[: -len(SUFFIX)] for name in names]))
        return None if None in values else cast(list[memoryview], values)

    def read_ahead(self, row: int) -> None:
        """Asks the system to fetch what follows a row's value, assuming that values are stored in key order.

        Without it each value waits for the disk, because the library is told not to read ahead. If the assumption is
        wrong, the cost is reading the whole file once more.
        """
        self._ahead.move(row / max(len(self._listed.samples), 1))

    @cached_property
    def _ahead(self) -> ReadAhead:
        return ReadAhead(data_file(self.path))

    @cached_property
    def _listed(self) -> _Listed:
        if self.key_file is None:
            keyed = KeyFile(self._walk(), "none", np.empty(0, np.int64))
        else:
            keyed = read_key_file(self.key_file)
        labels, numbers = keyed.labels, keyed.numbers
        if labels == "none" and keyed.keys and all(map(NL_KEY.fullmatch, keyed.keys)):
            labels = "persons in keys"
        named = StringColumnBuilder()
        for block in keyed.keys.encoded_blocks():
            named.extend_encoded([key + SUFFIX.encode() for key in block])
        del keyed  # frees millions of keys before as many names are sorted
        names = named.build()
        if len(find_falls(names)):
            order = sort_rows(names)
            names, numbers = names.take(order), numbers[order] if len(numbers) else numbers
        match labels:
            case "pids":
                samples = build_uniform(names, numbers.data, "train")
            case "persons in keys":
                # The rule fixes where the digits are.
                samples = build_uniform(names, (int(name[6:12]) for name in names), "train")
            case "none" | "vids":
                samples = build_uniform(names, repeat(JUNK), "unlabelled")
        return _Listed(samples, labels)

    def _describe_keys(self) -> str:
        count, entries = len(self._listed.samples), self._num_entries
        origin = f"{count:,} keys from {self.key_file.name}" if self.key_file else "every key of the database"
        return f"{origin}, {entries:,} entries in the database; {LABEL_NOTES[self._listed.labels]}"

    @cached_property
    def _num_entries(self) -> int:
        self._open_here()
        return int(self._environment.stat()["entries"])

    def _walk(self) -> StringColumn:
        keys = StringColumnBuilder()
        # The library also fetches the value of each key, although it is not requested.
        ahead, entries = ReadAhead(data_file(self.path)), max(self._num_entries, 1)
        with damage_named(self.path), self._environment.begin() as transaction, transaction.cursor() as cursor:
            walk = cursor.iternext(keys=True, values=False)
            while block := list(islice(walk, BLOCK_NAMES)):
                ahead.move(len(keys) / entries)
                try:
                    keys.extend_encoded(block)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}: contains a key that is not UTF-8 text ({_first_strange(block)!r})",
                        hint="name the keys to read with --keys FILE",
                    ) from error
        return keys.build()

    def _open_here(self) -> Any:
        """The function that reads a value in this thread; the database is opened once in each process."""
        lmdb = import_lmdb(self.path)
        with self._opening:
            if self._process != os.getpid():
                # What was inherited from a fork is released first: a process may open a database only once.
                self._local, self._environment = threading.local(), None
                self._environment = open_environment(lmdb, self.path)
                self._process = os.getpid()
        # A read transaction sees a fixed state, and may be used by one thread at a time.
        self._local.get = self._environment.begin(buffers=False).get
        return self._local.get


def _first_strange(keys: Sequence[bytes]) -> bytes:
    """The beginning of the first key that is not UTF-8 text."""
    for key in keys:
        try:
            key.decode("utf-8")
        except UnicodeDecodeError:
            return key[:40]
    raise AssertionError("every key is UTF-8 text")
