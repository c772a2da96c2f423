"""The key file beside an LMDB of crops: which keys there are, and which persons they show."""

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
HINT = "name the right file with --keys, or leave it out with --keys none"


@dataclass(frozen=True)
class KeyFile:
    """What a key file says.

    Args:
        keys: (N) in the file's order.
        labels: what `numbers` are: persons, videos, or nothing.
        numbers: (N) int64; empty without labels.
    """

    keys: StringColumn
    labels: Labels
    numbers: NDArray[np.int64]


def find_key_file(database: Path, named: str | None) -> Path | None:
    """The key file of a database: the one that was named, else the only pickle inside its folder or beside it.

    Args:
        database: the LMDB, a folder or a single file.
        named: a path, or the name of a file inside or beside the database; `none` takes no file.

    Returns:
        None where there is none, or none is wanted.

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
        raise DataError(f"{named}: there is no such key file", hint=f"look into {database} and {database.parent}")
    found = [path for folder in folders for path in sorted(folder.glob(f"*{KEY_SUFFIX}"))]
    if len(found) > 1:
        raise DataError(
            f"{database}: {len(found)} pickles could be its key file: {name_some(found)}",
            hint=f"--keys {found[0]}, or --keys none to read every entry",
        )
    return found[0] if found else None


def read_key_file(path: Path) -> KeyFile:
    """A pickled list of keys, or a dict with `keys` and perhaps `pids` or `vids`; nothing in the file is run.

    Raises:
        DataError: the pickle asks for a global.
        FormatError: it is no pickle, or holds something else.
    """
    held = load_plain(path)
    if isinstance(held, list):
        return KeyFile(_check_keys(path, held), "none", np.empty(0, np.int64))
    if not isinstance(held, dict) or "keys" not in held:
        shown = f"a dict with {name_some(map(repr, held))}" if isinstance(held, dict) else type(held).__name__
        raise FormatError(f"{path}: holds {shown}; a list of keys or a dict with 'keys' was expected", hint=HINT)
    keys = _check_keys(path, held["keys"])
    if "pids" in held:
        return KeyFile(keys, "pids", _check_numbers(path, "pids", held["pids"], len(keys)))
    if "vids" in held:
        return KeyFile(keys, "vids", _check_numbers(path, "vids", held["vids"], len(keys)))
    return KeyFile(keys, "none", np.empty(0, np.int64))


def _check_keys(path: Path, held: Any) -> StringColumn:
    if not isinstance(held, list):
        raise FormatError(f"{path}: its keys are a {type(held).__name__}; a list was expected", hint=HINT)
    keys = StringColumnBuilder()
    for key in held:
        if not isinstance(key, str | bytes):
            raise FormatError(f"{path}: {key!r} among its keys; texts were expected", hint=HINT)
        try:
            keys.append(key if isinstance(key, str) else key.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: the key {key!r} is no UTF-8 text", hint=HINT) from error
    return keys.build()


def _check_numbers(path: Path, name: str, held: Any, count: int) -> NDArray[np.int64]:
    if not isinstance(held, list) or len(held) != count:
        shown = f"{len(held):,}" if isinstance(held, list) else type(held).__name__
        raise FormatError(f"{path}: {shown} {name} for {count:,} keys", hint=HINT)
    strange = next((number for number in held if type(number) is not int), None)
    try:
        if strange is None:
            return np.fromiter(held, np.int64, count)
    except OverflowError as error:
        raise FormatError(f"{path}: a number among its {name} is too large ({error})", hint=HINT) from error
    raise FormatError(f"{path}: {strange!r} among its {name}; whole numbers were expected", hint=HINT)
