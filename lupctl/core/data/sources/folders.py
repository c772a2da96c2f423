"""Whether the folders of a tree are persons, judged by the names and the number of the files in them."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Literal

from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
from lupctl.core.data.sources.layouts.persons import CAMERA_FOLDER, ROLE_FOLDERS, detect_cameras
from lupctl.core.errors import DataError
from lupctl.core.system.examples import name_some

# How much of a large tree is looked at: this many folders, evenly spaced, and this many entries of each.
MOST_FOLDERS: Final = 200
MOST_ENTRIES: Final = 1_001
# Without cameras in the file names: the fewest folders and the most images in half of them that are taken for persons.
# Market-1501 has 17 images a person, MSMT17 31; a video cut into crops has hundreds.
FEWEST_PERSONS: Final = 5
MANY_IMAGES: Final = 100
# With a camera in every file name the names are evidence, too: MARS has 940 images a person.
MANY_MARKED: Final = 1_000
# Folders of numbers within every folder may be cameras if they are few.
MOST_CAMERAS: Final = 32

PERSONS, PERSONS_BY_CAMERA, IMAGES = "--layout persons", "--layout persons --cameras folder", "--layout images"
# What a folder holds that is a part of a recording or of a data set, and not a person.
DATE = re.compile(
    r"(19|20)\d\d([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(\D.*)?"  # a day
    r"|(19|20)\d\d[-_.](0[1-9]|1[0-2])|(19|20)\d\d"  # a month, a year
)
RECORDING = re.compile(
    r"(c|cam|camera|scene|seq|sequence|video|vid|clip|shot|session|part|batch|chunk|shard|day|hour|frames?)[ _-]?\d+",
    re.IGNORECASE,
)
VIDEO_ID = re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[\w-]{11}")
SPLITS = frozenset({
    "train", "training", "train_all", "test", "testing", "val", "valid", "validation", "query", "multi-query",
    "multi_query", "gallery", "probe",
})  # fmt: skip
NUMBER = re.compile(r"\d{1,4}")
# Market-1501's and DukeMTMC-reID's names begin with the person.
NAMED_PERSON = re.compile(r"(-1|\d{4,})_c\d+(?:s\d|_f\d)")


@dataclass(frozen=True)
class Judgement:
    """What the folders of a tree are.

    Args:
        kind: `persons`, `images` (no labels), or `unclear`.
        reason: why, as text to print.
        choices: where it is unclear, the options to choose from.
        remedy: where it is unclear, what helps instead of the first choice; empty if nothing has to be changed.
    """

    kind: Literal["persons", "images", "unclear"]
    reason: str
    choices: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class _Folder:
    """A folder at the top of a tree.

    Args:
        name: its name.
        images: paths relative to it of the images in it, and in the folders of cameras in it.
        below: names of the folders in it.
    """

    name: str
    images: tuple[str, ...]
    below: tuple[str, ...]


def judge_folders(root: Path, names: Sequence[str], *, loose: Sequence[str]) -> Judgement:
    """Whether each folder at the top of a tree is a person. Opens no image, and looks at a part of a large tree.

    The tree is **persons** if it has two or more folders with images, no image outside of them, and either

    - every file names its camera: `c3_000841.jpg`, `0002_c3s1_000841.jpg`, or `person/cam3/000841.jpg`, and half of the
      folders have at most 1,000 images; or
    - there are five folders or more, half of them have at most 100 images, and the images are directly in them.

    It is **images**, without labels, if there are no folders or a single one, or if the folders are named like
    recordings (`cam1`, `scene_02`, `video3`).

    Anything else is **unclear**: few folders with many images each, folders within folders, folders named like dates,
    like video ids or like splits (`train`, `test`), files named after several persons in one folder, and images next to
    folders of persons.

    Args:
        root: the tree.
        names: its folders, without hidden ones, sorted.
        loose: images next to the folders.

    Raises:
        DataError: a folder cannot be listed.
    """
    spread = names[:: -(-len(names) // MOST_FOLDERS)] if names else []
    folders = [folder for folder in (_look_into(root, name) for name in spread) if folder.images or folder.below]
    if len(folders) < 2:
        where = f"all in the folder {folders[0].name}" if folders else "all in one folder"
        some = next(filter(NAMED_PERSON.match, folders[0].images if folders else loose), None)
        labels = "persons have a folder each" if some is None else f"a CSV can label them, as {some} is named"
        return Judgement("images", f"images without labels, {where}; {labels}")
    total = len(folders) if len(spread) == len(names) else len(names)  # empty folders are nobody's
    named = _judge_names(folders, total)
    if named is not None:
        return named
    nested = _judge_nesting(folders)
    if nested is not None:
        return nested
    found = _judge_counts(folders, total)
    if loose and found.kind == "persons":
        return Judgement(
            "unclear", f"{found.reason}, and images next to them ({name_some(sorted(loose))})", (IMAGES,),
            "move these images out of the folder",
        )  # fmt: skip
    return found


def _judge_names(folders: Sequence[_Folder], total: int) -> Judgement | None:
    """By the names of the folders, where they are those of recordings or of splits."""
    examples = name_some([folder.name for folder in folders[:2]])
    splits = [folder.name for folder in folders if folder.name.lower() in SPLITS]
    if len(splits) > 1:
        return Judgement(
            "unclear", f"folders named like splits ({name_some(splits)})", (IMAGES,),
            f"leave {', '.join(ROLE_FOLDERS)} alone there, with a folder per person in each",
        )  # fmt: skip
    if _most(folders, RECORDING) and not any(folder.below for folder in folders):
        return Judgement("images", f"images without labels; the folders are recordings, not persons ({examples})")
    for rule, kind in ((DATE, "dates"), (VIDEO_ID, "ids of videos")):
        if _most(folders, rule):
            return Judgement("unclear", f"{total:,} folders named like {kind} ({examples})", (PERSONS, IMAGES))
    return None


def _judge_nesting(folders: Sequence[_Folder]) -> Judgement | None:
    """By the folders within folders, where there are any that are not cameras."""
    deep = [folder for folder in folders if folder.below]
    if not deep:
        return None
    example = f"{deep[0].name}/{deep[0].below[0]}"
    if all(NUMBER.fullmatch(name) for folder in folders for name in folder.below) and len(deep) == len(folders):
        numbers = Counter(int(name) for folder in folders for name in folder.below)
        if min(numbers.values()) > 1 and len(numbers) <= MOST_CAMERAS:
            return Judgement(
                "unclear", f"folders of numbers in every folder ({example}): cameras, perhaps",
                (PERSONS_BY_CAMERA, PERSONS, IMAGES),
            )  # fmt: skip
    return Judgement("unclear", f"folders within folders ({example})", (PERSONS, IMAGES))


def _judge_counts(folders: Sequence[_Folder], total: int) -> Judgement:
    """By the number of folders, of images in them, and by what the names of the files say."""
    middle = median(len(folder.images) for folder in folders)
    typical = f"more than {MANY_MARKED:,}" if middle > MANY_MARKED else f"{middle:,.0f}"
    size = f"{total:,} folders with a median of {typical} image{'s' * (middle > 1)}"
    if 2 * sum(_num_named(folder) > 1 for folder in folders) > len(folders):
        return Judgement("unclear", f"{size} and names of several persons in a folder", (PERSONS, IMAGES))
    paths = [path for folder in folders for path in folder.images]
    if detect_cameras(paths) != "none" and middle <= MANY_MARKED:
        return Judgement("persons", f"{size} and a camera in every name")
    if total >= FEWEST_PERSONS and middle <= MANY_IMAGES:
        return Judgement("persons", size)
    return Judgement("unclear", size, (PERSONS, IMAGES))


def _num_named(folder: _Folder) -> int:
    """How many persons the names of a folder's files begin with, as Market-1501's do."""
    return len({found[1] for path in folder.images if (found := NAMED_PERSON.match(path)) is not None})


def _most(folders: Sequence[_Folder], rule: re.Pattern[str]) -> bool:
    return 2 * sum(rule.fullmatch(folder.name) is not None for folder in folders) > len(folders)


def _look_into(root: Path, name: str) -> _Folder:
    """What is in a folder, at most `MOST_ENTRIES` of it, and in the folders of cameras in it."""
    images, below, pending = list[str](), list[str](), [""]
    while pending and len(images) < MOST_ENTRIES:
        inside = pending.pop()
        files, folders = list_entries(root / name / inside, most=MOST_ENTRIES)
        images += [f"{inside}{file}" for file in files]
        cameras = [] if inside else [folder for folder in folders if CAMERA_FOLDER.fullmatch(folder)]
        pending += [f"{folder}/" for folder in cameras]
        below += [f"{inside}{folder}" for folder in folders if folder not in cameras]
    return _Folder(name, tuple(images), tuple(sorted(below)))


def list_entries(folder: Path, *, most: int | None = None) -> tuple[list[str], list[str]]:
    """The names of the images and of the folders directly in a folder, without hidden ones, in no order.

    Args:
        folder: the folder.
        most: stops after this many of them.

    Raises:
        DataError: it cannot be listed.
    """
    files, folders = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not entry.is_dir():  # noqa: PTH122
                    files.append(name)  # a Path would cost twice as much as splitext
                elif entry.is_dir():
                    folders.append(name)
                if most is not None and len(files) + len(folders) >= most:
                    break
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})", hint="check it with ls -l") from error
    return files, folders
