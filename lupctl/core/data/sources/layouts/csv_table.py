"""A CSV for anything else: one row per image with its path, and what is known of person, camera and role."""

import csv
import os
import posixpath
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, get_args

import numpy as np

from lupctl.core.choices import JUNK, ROLE_CODES, UNKNOWN_CAMERA, Role, nearest_name
from lupctl.core.data.sources.layouts.persons import find_alike
from lupctl.core.data.sources.tree import ImageTree, sort_samples
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import open_text
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.system.strings import StringColumnBuilder, find_repeated

COLUMNS: Final = ("path", "person", "camera", "role")
NUMBER = re.compile(r"-1|[0-9]{1,18}")
MOST_HEADER = 1 << 16
MOST_CAMERAS: Final = int(np.iinfo(np.int16).max)


class CsvSource:
    """The images that a table names.

    Persons, or cameras, that are all whole numbers keep them (person 0 is a distractor of the gallery, -1 junk); any
    other texts are numbered from 1 in sorted order, and the record has the texts. An empty cell means unknown.

    Args:
        path: the table, UTF-8, with a header; or a folder with one table.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
        root: the folder that paths are relative to; the table's folder by default.

    Raises:
        DataError: there is no such table.
    """

    def __init__(self, path: Path, *, dataset: str, terms: str = "", root: Path | None = None) -> None:
        self.path = find_table(path)
        self.root = root or self.path.parent
        self.dataset = dataset
        self._tree = ImageTree(self.root, layout="csv", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        columns = {"person_names": self._table.persons, "camera_names": self._table.cameras}
        known: dict[str, object] = {
            key: names for key, column in columns.items() if (names := name_texts(column.texts))
        }
        alike = [pair for column in columns.values() for pair in find_alike(name_texts(column.texts))]
        if alike:
            known["notes"] = [f"texts that differ in case only are different persons or cameras: {name_some(alike)}"]
        return self._tree.facts(table=self.path.name, **known)

    def list_images(self) -> Samples:
        """Every row, sorted by (role, name); whether the files exist is not checked.

        Raises:
            DataError: a header without `path` or with an unknown column, a row that cannot be read, or a path that
                is repeated or outside the root.
        """
        return self._samples

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    @cached_property
    def _table(self) -> "_Table":
        return _Table(self.path, self.root)

    @cached_property
    def _samples(self) -> Samples:
        table = self._table
        persons = number_texts(table.persons.texts, unknown=JUNK, what=f"{self.path}: column person")
        cameras = number_texts(table.cameras.texts, unknown=UNKNOWN_CAMERA, what=f"{self.path}: column camera")
        if max(cameras, default=0) > MOST_CAMERAS:
            raise DataError(
                f"{self.path}: camera {max(cameras)}; numbers up to {MOST_CAMERAS:,} were expected",
                hint="number the cameras from 1",
            )
        return sort_samples(
            Samples(
                person=np.array(persons, np.int64)[table.persons.indices],
                camera=np.array(cameras, np.int16)[table.cameras.indices],
                role=np.frombuffer(table.roles, np.uint8),
                name=table.names,
            )
        )


class _TextColumn:
    """A column of texts: the distinct ones, and the index of each row's text among them."""

    def __init__(self) -> None:
        self._index_of: dict[str, int] = {}
        self.indices = array("q")

    @property
    def texts(self) -> list[str]:
        """The distinct texts in the order of their first row."""
        return list(self._index_of)

    def append(self, text: str) -> None:
        """Adds a row."""
        self.indices.append(self._index_of.setdefault(text, len(self._index_of)))


class _Table:
    """The columns of a table as written, with paths made relative."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self._prefix = posixpath.normpath(os.fspath(root.absolute())).rstrip("/") + "/"
        self.persons, self.cameras = _TextColumn(), _TextColumn()
        self.roles = array("B")
        self._lines = array("q")
        names = StringColumnBuilder()
        try:
            with open_text(path, LIST_BYTES, encoding="utf-8-sig", newline="") as stream:
                self._read(csv.reader(stream, strict=True), names)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 text ({error})", hint=f"iconv -f WINDOWS-1252 -t UTF-8 {path}"
            ) from error
        except csv.Error as error:
            raise DataError(
                f"{path}: not a valid CSV ({error})", hint="quote cells that contain commas or quotes"
            ) from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error
        self.names = names.build()
        self._refuse_repeated()

    def _read(self, reader: "Iterator[list[str]]", names: StringColumnBuilder) -> None:
        columns = _check_header(self._path, next(reader, []))
        default: Role = "train" if "person" in columns else "unlabelled"
        for row in reader:
            line = reader.line_num  # type: ignore[attr-defined]
            if not row:
                continue
            if len(row) != len(columns):
                raise self._error(line, f"{len(row)} cells for {len(columns)} columns", "write one cell per column")
            cells = dict(zip(columns, map(str.strip, row), strict=True))
            names.append(self._relative(cells["path"], line))
            self.persons.append(cells.get("person", ""))
            self.cameras.append(cells.get("camera", ""))
            self.roles.append(ROLE_CODES[self._role(cells["role"], line) if "role" in cells else default])
            self._lines.append(line)

    def _role(self, text: str, line: int) -> Role:
        roles: tuple[Role, ...] = get_args(Role)
        for role in roles:
            if role == text:
                return role
        near = nearest_name(text, roles)
        raise self._error(
            line,
            f"role {text!r}; expected one of {', '.join(roles)}",
            f"did you mean {near}?" if near else "leave the column out if all images have the same role",
        )

    def _relative(self, text: str, line: int) -> str:
        name = posixpath.normpath(text) if text else ""
        if name.startswith(self._prefix):
            name = name.removeprefix(self._prefix)
        if not text or name == ".":
            raise self._error(line, "has no path", "give a path in every row")
        if name.startswith("/") or name.split("/", 1)[0] == "..":
            hint = "name a folder that contains all images: --root FOLDER"
            if not name.startswith("/"):
                hint = "write paths below a folder that contains all images, and name it: --root FOLDER"
            raise self._error(line, f"{text} is outside {self._root}", hint)
        return name

    def _refuse_repeated(self) -> None:
        repeated = find_repeated(self.names).tolist()
        if repeated:
            twice = [f"{self.names[row]} (line {self._lines[row]})" for row in repeated]
            raise DataError(
                f"{self._path}: {count_things(len(twice), 'path')} given more than once: {name_some(twice)}",
                hint="keep one row per image",
            )

    def _error(self, line: int, what: str, hint: str) -> DataError:
        return DataError(f"{self._path}: line {line}: {what}", hint=hint)


def number_texts(texts: Sequence[str], *, unknown: int, what: str) -> list[int]:
    """Numbers for a column of texts: their own if all are whole numbers from -1, else from 1 in sorted order.

    >>> number_texts(["7", "", "-1"], unknown=-1, what="column person")
    [7, -1, -1]
    >>> number_texts(["Zoë", "Ada", "Zoë"], unknown=-1, what="column person")
    [2, 1, 2]

    Args:
        texts: (N) cells; an empty one means unknown.
        unknown: the number of an empty cell.
        what: the column, for the error.

    Raises:
        DataError: one number is written in two ways, such as 7 and 007.
    """
    distinct = sorted({text for text in texts if text})
    numbers = name_texts(texts)
    if not numbers:
        numbers = {text: int(text) for text in distinct}
        if len(set(numbers.values())) < len(distinct):
            known = list(numbers.values())
            twice = [text for text in distinct if known.count(numbers[text]) > 1]
            raise DataError(
                f"{what}: the same number in different spellings: {name_some(twice)}",
                hint="write each number in one way only",
            )
    numbers[""] = unknown
    return [numbers[text] for text in texts]


def name_texts(texts: Sequence[str]) -> dict[str, int]:
    """The numbers of texts that are not numbers themselves, by text; empty if all are numbers.

    >>> name_texts(["Zoë", "", "Ada"]), name_texts(["7", "-1"])
    ({'Ada': 1, 'Zoë': 2}, {})
    """
    distinct = sorted({text for text in texts if text})
    if all(NUMBER.fullmatch(text) for text in distinct):
        return {}
    return {text: number for number, text in enumerate(distinct, start=1)}


def find_table(path: Path) -> Path:
    """The table at a path: the file itself, or the only CSV in a folder.

    Raises:
        DataError: there is none, or more than one.
    """
    if path.is_file():
        return path
    found = list_tables(path) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} tables: {name_some(file.name for file in found)}" if found else "no CSV"
    raise DataError(f"{path}: {what}; one was expected", hint="name the file: lupctl data pack FILE.csv --name NAME")


def list_tables(folder: Path) -> list[Path]:
    """The CSV files directly in a folder, sorted."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(".csv")]  # noqa: PTH208, a Path costs more
    return sorted(folder / name for name in names if (folder / name).is_file())


def has_path_column(path: Path) -> bool:
    """Whether the header of a CSV has a column `path`."""
    try:
        with open_text(path, None, encoding="utf-8-sig", newline="") as stream:
            return "path" in [cell.strip() for cell in next(csv.reader([stream.readline(MOST_HEADER)]), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _check_header(path: Path, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown and "path" not in columns and len(columns) == 1:
        what = f"its header is {unknown[0]!r}; columns separated by commas were expected, path among them"
    elif unknown:
        near = nearest_name(unknown[0].lower(), COLUMNS)
        what = f"unknown column {unknown[0]!r}" + (f"; did you mean {near}?" if near else "")
    elif len(set(columns)) < len(columns):
        what = f"a column occurs twice in {', '.join(columns)}"
    elif "path" not in columns:
        what = f"no path column in its header ({', '.join(columns) or 'the file is empty'})"
    else:
        return columns
    raise DataError(f"{path}: {what}", hint="the header is path,person,camera,role; all but path are optional")
