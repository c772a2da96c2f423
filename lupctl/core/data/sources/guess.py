"""Guesses the layout of a dataset from what is on the disk."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from lupctl.core.choices import Layout
from lupctl.core.data.catalog.datasets import find_entry
from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
from lupctl.core.data.sources.folders import NAMED_PERSON, judge_folders, list_entries
from lupctl.core.data.sources.layouts.csv_table import has_path_column, list_tables
from lupctl.core.data.sources.layouts.cuhk03 import INDEX_NAME, index_files, refuse_classic
from lupctl.core.data.sources.layouts.lmdb_files import DATA_NAME, has_database
from lupctl.core.data.sources.layouts.luperson_nl import names_person
from lupctl.core.data.sources.layouts.market1501 import FOLDERS, has_market_folders
from lupctl.core.data.sources.layouts.msmt17 import has_msmt17_lists
from lupctl.core.data.sources.layouts.persons import ROLE_FOLDERS
from lupctl.core.errors import DataError

# Maximum number of folders opened in search of one image whose name shows the layout.
MOST_FOLDERS = 100


# LUPerson's crops: frame and object.
CROP = re.compile(r"\d{8}_\d{4}\.jpg")


@dataclass(frozen=True)
class Guess:
    """A guessed layout and the reason for it, as text to print.

    Args:
        layout: the guessed layout; None if there is more than one to choose from.
        reason: why it was guessed, or what is unclear.
        choices: if the layout is None, the options to choose from.
        remedy: if the layout is None, what can be changed instead; empty if there is nothing.
    """

    layout: Layout | None
    reason: str
    choices: tuple[str, ...] = ()
    remedy: str = ""


def guess_layout(path: Path, *, dataset: str) -> Guess:
    """The layout of a folder or file if the user did not name one.

    What is on the disk decides if it is unambiguous, then the catalogue for a known name, then whether the folders look
    like persons: see `judge_folders`. Names and numbers of files are examined, no image is opened.

    Raises:
        DataError: there is no such path, or it is not a set of person images.
    """
    if path.is_file():
        return _guess_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder", hint=f"put the images under {path}")
    loose, names = list_entries(path)
    folders = [path / name for name in sorted(names)]
    _refuse_sequences(path, folders, dataset)
    candidates = (path, *folders)
    if has_database(path):
        return Guess("lmdb", f"it contains {DATA_NAME}")
    if any(map(has_msmt17_lists, candidates)):
        return Guess("msmt17", "it has MSMT17's lists, such as list_train.txt")
    has_market = any(map(has_market_folders, candidates))
    if not has_market:
        refuse_classic(path)
        if index_files(path):
            return Guess("cuhk03-index", f"it contains {INDEX_NAME.format(boxes='...')}")
    entry = find_entry(dataset)
    if entry is not None and entry.layout != "drawn" and not (has_market and entry.layout == "msmt17"):
        return Guess(entry.layout, f"{dataset} is {entry.title}")
    if has_market:
        return Guess("market1501", "it has bounding_box_train, query and bounding_box_test")
    tables = list_tables(path)
    if len(tables) == 1 and has_path_column(tables[0]):
        return Guess("csv", f"{tables[0].name} has a path column")
    if set(names) <= set(ROLE_FOLDERS) and ("train" in names or len(names) > 1):
        return _guess_roles(folders)
    first = _first_image(path)
    if names_person(first):
        return Guess("luperson-nl", f"{first} is named like LUPerson-NL's crops: person, frame, object")
    if CROP.fullmatch(first):
        return Guess("images", f"images without labels; {first} is named like LUPerson's crops: frame, object")
    if len(names) == 1 and not loose and len(list_entries(folders[0])[1]) > 1:
        return _guess_inside(path, folders[0], dataset)
    found = judge_folders(path, sorted(names), loose=loose)
    layout = None if found.kind == "unclear" else found.kind
    other = "; if they are not persons: --layout images" if layout == "persons" else ""
    return Guess(layout, f"{found.reason}{other}", found.choices, found.remedy)


def _guess_roles(folders: Sequence[Path]) -> Guess:
    """The guess for the folders train, query and gallery: a folder per person in each, or Market-1501's file names."""
    names = ", ".join(folder.name for folder in folders)
    files, _ = list_entries(folders[0], most=1)
    if files and NAMED_PERSON.match(files[0]):
        return Guess(
            None,
            f"{names} have no folders per person, and files named as in Market-1501 ({folders[0].name}/{files[0]})",
            ("--layout images",),
            f"name the folders {', '.join(FOLDERS)}",
        )
    return Guess("persons", f"it has the folders {names}")


def _guess_inside(path: Path, folder: Path, dataset: str) -> Guess:
    """The guess for a folder that holds nothing but another one, as archives unpack: what is inside may be persons."""
    inside = guess_layout(folder, dataset=dataset)
    if inside.layout not in (None, "persons"):
        return Guess("images", f"images without labels, all in the folder {folder.name}")
    name = "" if folder.name == dataset else f" --name {dataset}"
    return Guess(
        None,
        f"everything is in its folder {folder.name} ({inside.reason.partition(';')[0]})",
        ("--layout images",),
        f"lupctl data pack {quote(str(folder))}{name}",
    )


def _guess_file(path: Path) -> Guess:
    match path.suffix.lower():
        case ".csv":
            return Guess("csv", "a table")
        case ".mat":
            return Guess("cuhk03-index", "an index file of CUHK03's new protocol")
        case ".mdb" | ".lmdb":
            return Guess("lmdb", "a database file")
        case _:
            raise DataError(
                f"{path}: unknown kind of file; a folder or a .csv, .mat, .mdb or .lmdb file was expected",
                hint="name the folder that contains the images, or a CSV of their paths",
            )


def _refuse_sequences(path: Path, below: Sequence[Path], dataset: str) -> None:
    """Refuses a video, or its frames, with boxes: the persons have to be cut out before they are packed."""
    for folder in (path, *below):
        boxes = next((folder / name for name in ("gt/gt.txt", "det/det.txt") if (folder / name).is_file()), None)
        if boxes is not None:
            raise DataError(
                f"{folder}: a MOTChallenge sequence of frames and boxes ({boxes.parent.name}/{boxes.name}); its "
                "persons have to be cut out first",
                hint=f"lupctl data build {dataset} --videos {folder} --detections {boxes} --format mot",
            )


def _first_image(root: Path) -> str:
    """The name of any one image in the first `MOST_FOLDERS` folders below a folder; empty if there is none."""
    pending = [os.fspath(root)]
    for _ in range(MOST_FOLDERS):
        if not pending:
            break
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122, as in folder
                    return entry.name
    return ""
