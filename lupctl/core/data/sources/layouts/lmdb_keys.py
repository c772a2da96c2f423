"""The key file next to an LMDB of crops: its keys, and the persons they show."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.pickles import load_plain
from lupctl.core.system.examples import name_some
from lupctl.core.system.strings import StringColumn, StringColumnBuilder

Labels = Literal["none", "pids", "vids", "persons in keys"]
KEY_SUFFIX: Final = ".pkl"
MOST_KEY: Final = 511  # as LMDB is compiled
HINT = "name the right file with --keys, or leave it out with --keys none"


@dataclass(frozen=True)
class KeyFile:
    """The contents of a key file.

    Args:
        keys: (N) in file order.
        labels: what `numbers` are: persons, videos, or nothing.
        numbers: (N) int64; empty if there are none.
    """

    keys: StringColumn
    labels: Labels
    numbers: NDArray[np.int64]


def find_key_file(database: Path, named: str | None) -> Path | None:
    """The key file of a database: the one that was named, else the only pickle inside its folder or next to it.

    Args:
        database: the LMDB, a folder or a single file.
        named: a path, or the name of a file inside or next to the database; `none` for no file.

    Returns:
        None if there is none, or `named` is `none`.

    Raises:
        DataError: the named file is not there, or there are several.
    """
    if named == "none":
        return None
    folders = [database, database.parent] if database.is_dir() else [database.parent]
    if named is not None:
        for path in (Path(named), *(folder / named for folder in folders)):
            if path.is_file():
                return path
        raise DataError(f"{named}: there is no such key file", hint=f"look in {database} and {database.parent}")
    found = [path for folder in folders for path in sorted(folder.glob(f"*{KEY_SUFFIX}"))]
    if len(found) > 1:
        raise DataError(
            f"{database}: {len(found)} pickles could be its key file: {name_some(found)}",
            hint=f"--keys {found[0]}, or --keys none to read every entry",
        )
    return found[0] if found else None


def read_key_file(path: Path) -> KeyFile:
    """A pickled list of keys, or a dict with `keys` and perhaps `pids` or `vids`; no code in the file is run.

    Raises:
        DataError: the pickle asks for a global.
        FormatError: it is not a pickle, or contains something else.
    """
    content = load_plain(path)
    if isinstance(content, list):
        return KeyFile(_check_keys(path, content), "none", np.empty(0, np.int64))
    if not isinstance(content, dict) or "keys" not in content:
        shown = (
            f"a dict with {name_some(map(reprlib.repr, content))}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise FormatError(f"{path}: contains {shown}; a list of keys or a dict with 'keys' was expected", hint=HINT)
    keys = _check_keys(path, content["keys"])
    if "pids" in content:
        return KeyFile(keys, "pids", _check_numbers(path, "pids", content["pids"], len(keys)))
    if "vids" in content:
        return KeyFile(keys, "vids", _check_numbers(path, "vids", content["vids"], len(keys)))
    return KeyFile(keys, "none", np.empty(0, np.int64))


def _check_keys(path: Path, content: Any) -> StringColumn:
    if not isinstance(content, list):
        raise FormatError(f"{path}: its keys are a {type(content).__name__}; a list was expected", hint=HINT)
    keys = StringColumnBuilder()
    for key in content:
        if not isinstance(key, str | bytes) or len(key) > MOST_KEY:
            raise FormatError(
                f"{path}: {reprlib.repr(key)} is among its keys; text of up to {MOST_KEY} bytes was expected", hint=HINT
            )
        try:
            keys.append(key if isinstance(key, str) else key.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: the key {reprlib.repr(key)} is not UTF-8 text", hint=HINT) from error
    return keys.build()


def _check_numbers(path: Path, name: str, content: Any, count: int) -> NDArray[np.int64]:
    if not isinstance(content, list) or len(content) != count:
        shown = f"{len(content):,}" if isinstance(content, list) else type(content).__name__
        raise FormatError(f"{path}: {shown} {name} for {count:,} keys", hint=HINT)
    strange = next((number for number in content if type(number) is not int), None)
    try:
        if strange is None:
            return np.fromiter(content, np.int64, count)
    except OverflowError as error:
        raise FormatError(f"{path}: a number among its {name} is too large ({error})", hint=HINT) from error
    raise FormatError(f"{path}: {reprlib.repr(strange)} is among its {name}; whole numbers were expected", hint=HINT)
