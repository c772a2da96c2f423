"""A list of image names, best first: a text of one name a line, or a pickled list, which is read without running it."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import h5py

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.pickles import load_plain
from lupctl.core.system.disk.reading import check_regular, open_stream, read_bytes

PICKLE_SUFFIXES: Final = (".pkl", ".pickle")
# What every protocol from 2 on starts with.
PICKLE_START: Final = b"\x80"
HINT: Final = "a text with the name of an image on each line, best first, as data info and the pack have them"


def is_scores(path: Path) -> bool:
    """Whether a file is HDF5, as a scores file is, whatever its name says.

    Raises:
        DataError: there is no such file, or it is a FIFO or the like.
    """
    try:
        check_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path.parent}") from error
    return bool(h5py.is_hdf5(path)) or path.suffix == ".h5"


def read_names(path: Path) -> list[str]:
    """The names in a list, in its order.

    Raises:
        DataError: there is no such file, it is empty or too large, or a pickle that names anything but plain data.
        FormatError: it is neither a text nor a pickled list of names.
    """
    try:
        with open_stream(path) as stream:
            start = stream.read(len(PICKLE_START))
        is_pickle = path.suffix.lower() in PICKLE_SUFFIXES or start == PICKLE_START
        content = b"" if is_pickle else read_bytes(path, LIST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path.parent}") from error
    names = _names_of(load_plain(path), path) if is_pickle else _read_text(content, path)
    if not names:
        raise DataError(f"{path}: names no image", hint=HINT)
    return names


def _names_of(content: Any, path: Path) -> list[str]:
    if not isinstance(content, list | tuple):
        raise FormatError(f"{path}: a pickled {type(content).__name__}; a list of names was expected", hint=HINT)
    strange = next((item for item in content if not isinstance(item, str)), None)
    if strange is not None:
        raise FormatError(f"{path}: an item of it is of type {type(strange).__name__}; names were expected", hint=HINT)
    return list(content)


def _read_text(content: bytes, path: Path) -> list[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: neither a text nor a pickled list ({error})", hint=HINT) from error
    if "\0" in text:
        raise FormatError(f"{path}: neither a text nor a pickled list, but other binary data", hint=HINT)
    return [name for line in text.splitlines() if (name := line.strip())]


def is_sorted(names: Sequence[str]) -> bool:
    """Whether names are in alphabetical order, forwards or backwards, as no ranking of more than a few is."""
    if len(names) < 8:
        return False
    rising = all(first <= second for first, second in pairwise(names))
    return rising or all(first >= second for first, second in pairwise(names))
