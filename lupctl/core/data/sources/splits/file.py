"""A split file: which image has which role."""

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, Role, nearest_name
from lupctl.core.errors import DataError
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_bytes
from lupctl.core.system.examples import count_things, name_some

ROLES: Final[tuple[Role, ...]] = ("train", "query", "gallery")
COLUMNS: Final = ("path", "role")
SEPARATORS: Final = ",;\t"
HINT: Final = "write a line for each image, as in: 0001/c1_001.jpg,train"

# A line of a split file: its number, the image, its role.
Line = tuple[int, str, str]


def read_roles(path: Path, names: Sequence[str]) -> tuple[NDArray[np.uint8], str]:
    """The role of each image as a split file says, and the file's SHA-256.

    A line has a path and a role with a comma, semicolon or tab between them; a table with a header may have further
    columns. Paths are names as in the pack, or file names without folders where only one image has that name, as in the
    files of `finetune --subset`.

    Args:
        path: the file.
        names: (N) of all images.

    Returns:
        (N) codes of roles, that of `unlabelled` for images that are not named; and the digest.

    Raises:
        DataError: not a text, no lines, a line without path and role, an image that there is not or that comes twice,
            or an unknown role.
    """
    try:
        content = read_bytes(path, LIST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: not a readable split file ({error.strerror})", hint="check it with ls -l") from error
    lines = _read_lines(path, _decode(path, content))
    row_of = _rows_by_name(names)
    absent = [f"{name} (line {number})" for number, name, _ in lines if name not in row_of]
    as_in = f"write the paths of images below the dataset's folder, as in: {names[0]},train"
    _refuse(path, absent, "not among the images", as_in)
    codes = _codes(path, lines)
    rows = [row_of[name] for _, name, _ in lines]
    twice = [names[row] for row, count in Counter(rows).items() if count > 1]
    _refuse(path, twice, "given more than once", "keep one line for each image")
    roles = np.full(len(names), ROLE_CODES["unlabelled"], np.uint8)
    roles[rows] = codes
    return roles, f"sha256:{hashlib.sha256(content).hexdigest()}"


def _decode(path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})", hint=HINT) from error
    if "\0" in text:
        raise DataError(f"{path}: not a text, but binary data", hint=HINT)
    return text


def _read_lines(path: Path, text: str) -> list[Line]:
    """The lines that are not blank."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=head.count)
    reader = csv.reader(text.splitlines(), delimiter=separator, strict=True)
    found: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not a valid table ({error})", hint=HINT) from error
    at, width = (0, 1), 2
    if found and set(COLUMNS) <= set(found[0][1]):
        header = found.pop(0)[1]
        at, width = (header.index("path"), header.index("role")), len(header)
    if not found:
        raise DataError(f"{path}: names no image", hint=HINT)
    for number, cells in found:
        if len(cells) != width:
            what = "a path and a role" if width == 2 else f"{width} cells"
            raise DataError(f"{path}: line {number}: {separator.join(cells)!r}; {what} were expected", hint=HINT)
    return [(number, cells[at[0]].removeprefix("./"), cells[at[1]]) for number, cells in found]


def _rows_by_name(names: Sequence[str]) -> dict[str, int]:
    """The row of each name, and of each file name that occurs once."""
    short = [name.rpartition("/")[2] for name in names]
    times = Counter(short)
    by_short = {name: row for row, name in enumerate(short) if times[name] == 1}
    return by_short | {name: row for row, name in enumerate(names)}


def _codes(path: Path, lines: Sequence[Line]) -> list[int]:
    known: dict[str, int] = {role: ROLE_CODES[role] for role in ROLES}
    strange = [f"{role!r} (line {number})" for number, _, role in lines if role not in known]
    if strange:
        near = nearest_name(next(role for _, _, role in lines if role not in known).lower(), ROLES)
        meant = f"did you mean {near}?" if near else "the roles are train, query and gallery"
        raise DataError(f"{path}: unknown roles: {len(strange):,} ({name_some(strange)})", hint=meant)
    return [known[role] for _, _, role in lines]


def _refuse(path: Path, examples: list[str], what: str, hint: str) -> None:
    if examples:
        raise DataError(f"{path}: {count_things(len(examples), 'name')} {what}: {name_some(examples)}", hint=hint)
