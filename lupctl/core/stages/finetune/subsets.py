"""Parts of a training set: drawn by a ratio, or read from a split file (small-scale and few-shot, Fu et al. 2021)."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import SubsetKind
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_text
from lupctl.core.system.drawn_order import draw_order, share
from lupctl.core.system.examples import count_things, name_some

# used_ids_0.10.txt, used_ims_0.10.txt: the ratio is part of the name.
RATIO_NAME = re.compile(r"used_(?:ids|ims)_(\d\.\d+)\.txt")
NUMBER = re.compile(r"\d{1,18}")
HINT: Final = "take the file that belongs to this dataset, or draw a subset: --subset ids:0.1"


def draw_subset(samples: Samples, split: SubsetKind, ratio: str, *, seed: int) -> NDArray[np.int64]:
    """Rows of a part of a training set, determined by the seed and independent of machine and version.

    The part for a larger ratio contains that for a smaller one. `ids` keeps all images of int(n R) of the n persons;
    `images` keeps int(N R) of the N images, but at least one of each person. These are the counts of the published
    split files. Persons and images are ordered by BLAKE2b (128 bits) of the texts `SEED person NUMBER` and
    `SEED image NAME`.

    Args:
        samples: N labelled training images of n persons.
        split: what is counted.
        ratio: R, a decimal number above 0 and up to 1, as typed: 0.29 of 100 is 29, not the 28 of binary fractions.
        seed: different seeds keep different images.

    Returns:
        (K) rows, in ascending order.

    Raises:
        DataError: no person would be kept.
    """
    persons = np.unique(samples.person)
    if split == "ids":
        count = share(len(persons), ratio)
        if count == 0:
            raise DataError(
                f"ids:{ratio} of {count_things(len(persons), 'person')} keeps none",
                hint=f"--subset ids:{min(2 / len(persons), 1):.2g}",
            )
        drawn = draw_order(seed, "person", map(str, persons.tolist()))
        return np.flatnonzero(np.isin(samples.person, persons[drawn[:count]]))
    order = draw_order(seed, "image", samples.name)
    _, first = np.unique(samples.person[order], return_index=True)
    is_first = np.zeros(len(order), np.bool_)
    is_first[first] = True
    # The first image of every person, then all others, both in drawn order: what is kept has every person.
    order = [*np.asarray(order)[is_first].tolist(), *np.asarray(order)[~is_first].tolist()]
    return np.sort(np.array(order[: max(share(len(order), ratio), len(persons))], np.int64))


def read_split(path: Path, samples: Samples, *, offset: int = 0) -> NDArray[np.int64]:
    """Rows that a split file names: each line has a person number or an image name.

    Published are `used_ids_R.txt` (a number and a space) and `used_ims_R.txt` (name; label; camera and a space, CRLF,
    label and camera from 0); a user's own list may have nothing but names. Names are file names without folders, or
    names as in the pack. The file is only read.

    Args:
        path: the file.
        samples: the N labelled training images of a pack, to choose from.
        offset: what the pack added to the dataset's own person numbers.

    Returns:
        (K) rows, in ascending order.

    Raises:
        DataError: a line that is not in the pack, a line twice, labels or cameras that differ from the pack's, or a
            count that differs from the ratio in the name of the file.
    """
    lines = _read_lines(path)
    if all(NUMBER.fullmatch(text) for _, text in lines):
        rows = _rows_of_persons(path, lines, samples, offset)
        _check_ratio(path, "persons", len(lines), 0, len(np.unique(samples.person)))
    else:
        rows = _rows_of_images(path, lines, samples)
        persons = len(np.unique(samples.person))
        _check_ratio(path, "images", len(rows), persons, len(samples))
    return np.sort(rows)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, stripped, with their numbers."""
    try:
        text = read_text(path, LIST_BYTES, encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: not a readable split file ({error.strerror})", hint="--subset ids:0.1, images:0.1, or a file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})", hint=HINT) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: is empty", hint=HINT)
    return lines


def _rows_of_persons(path: Path, lines: list[tuple[int, str]], samples: Samples, offset: int) -> NDArray[np.int64]:
    wanted = [int(text) + offset for _, text in lines]
    known = set(samples.person.tolist())
    unknown = [
        f"{text} (line {number})" for (number, text), person in zip(lines, wanted, strict=True) if person not in known
    ]
    _refuse(path, unknown, "persons are not in the training set")
    _refuse(path, [str(person) for person, times in Counter(wanted).items() if times > 1], "persons come twice")
    return np.flatnonzero(np.isin(samples.person, wanted))


def _rows_of_images(path: Path, lines: list[tuple[int, str]], samples: Samples) -> NDArray[np.int64]:
    row_of = {name: row for row, name in enumerate(samples.name)}
    short = [name.rpartition("/")[2] for name in samples.name]
    times = Counter(short)
    row_of |= {name: row for row, name in enumerate(short) if times[name] == 1}
    fields = [[field.strip() for field in text.rstrip("; ").split(";")] for _, text in lines]
    unknown = [
        f"{field[0]} (line {number})"
        for (number, _), field in zip(lines, fields, strict=True)
        if field[0] not in row_of
    ]
    _refuse(path, unknown, "names are not in the training set")
    rows = [row_of[field[0]] for field in fields]
    _refuse(path, [samples.name[row] for row, count in Counter(rows).items() if count > 1], "names come twice")
    _check_labels(path, lines, fields, samples, rows)
    return np.array(rows, np.int64)


def _check_labels(
    path: Path, lines: list[tuple[int, str]], fields: list[list[str]], samples: Samples, rows: list[int]
) -> None:
    """In lines with label and camera, each label must be one person, and the camera the pack's, counted from 0."""
    wrong: list[str] = []
    person_of: dict[str, int] = {}
    label_of: dict[int, str] = {}
    for (number, text), field, row in zip(lines, fields, rows, strict=True):
        if len(field) == 1:
            continue
        if len(field) != 3 or not all(NUMBER.fullmatch(part) for part in field[1:]):
            wrong.append(f"line {number}: {text!r} is not 'name; label; camera'")
            continue
        person, camera = int(samples.person[row]), int(samples.camera[row])
        if person_of.setdefault(field[1], person) != person or label_of.setdefault(person, field[1]) != field[1]:
            wrong.append(f"line {number}: label {field[1]} belongs to another person")
        if camera >= 0 and int(field[2]) + 1 != camera:
            wrong.append(f"line {number}: camera {field[2]}, but the pack has {camera} (counted from 1)")
    _refuse(path, wrong, "lines do not fit the pack")


def _check_ratio(path: Path, what: str, found: int, least: int, total: int) -> None:
    named = RATIO_NAME.fullmatch(path.name)
    if named is None:
        return
    expected = max(share(total, named[1]), least)
    if found != expected:
        raise DataError(
            f"{path}: names {found:,} {what}; {named[1]} of the pack's {total:,} are {expected:,}",
            hint="pack the whole dataset, or rename the file to use it as it is",
        )


def _refuse(path: Path, examples: list[str], what: str) -> None:
    if examples:
        raise DataError(f"{path}: {len(examples):,} {what}: {name_some(examples)}", hint=HINT)
