"""MSMT17 as its owners publish it: four list files next to the image folders (Wei et al. 2018, arXiv 1711.08565)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from lupctl.core.choices import Role, Version
from lupctl.core.data.sources.folder import list_folders
from lupctl.core.data.sources.layouts import numbering
from lupctl.core.data.sources.tree import ImageTree, build_samples
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_text
from lupctl.core.system.examples import name_some

LISTS: Final[dict[str, Role]] = {
    "list_train.txt": "train",
    "list_val.txt": "train",
    "list_query.txt": "query",
    "list_gallery.txt": "gallery",
}
VALIDATION_LIST: Final = "list_val.txt"
# Folders of training and test images; V2 is the edition with blurred faces.
PLAIN_FOLDERS: Final = ("train", "test")
BLURRED_FOLDERS: Final = ("mask_train_v2", "mask_test_v2")
# 0000/0000_000_01_0303morning_0008_0.jpg 0: the third field of the file's name is the camera, from 1.
LINE_RULE = re.compile(
    r"(?P<path>(?:[^/]+/)*[^/_]+_[^/_]+_(?P<camera>[0-9]{1,4})_[^/]*) +(?P<person>[0-9]{1,9})", re.ASCII
)


@dataclass(frozen=True)
class Edition:
    """An edition of MSMT17.

    Args:
        version: v1, or v2 with blurred faces.
        reason: how the version was determined.
        folders: of training and of test images.
    """

    version: Version
    reason: str
    folders: tuple[str, str]


class Msmt17Source:
    """The images in the four lists.

    Persons are numbered from 0 in training and from 0 again in testing; the pack shifts them apart: see `numbering`.

    Args:
        root: the folder that contains the lists, or one with such a folder directly below it.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
        version: if the user gives it; required if the folder names do not show it.
        with_val: whether the images of list_val.txt are also used for training.

    Raises:
        DataError: the lists or the folders are missing, or V1 and V2 cannot be told apart.
        UsageError: `version` contradicts the folders.
    """

    def __init__(
        self,
        root: Path,
        *,
        dataset: str = "msmt17",
        terms: str = "",
        version: Version | None = None,
        with_val: bool = True,
    ) -> None:
        self.root = find_msmt17_root(root)
        self.dataset = dataset
        self.edition = find_edition(self.root, version)
        self.with_val = with_val
        self._tree = ImageTree(self.root, layout="msmt17", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        edition = self.edition
        notes = [
            f"MSMT17 {edition.version.upper()} ({edition.reason})",
            f"the images of {VALIDATION_LIST} are {'part of train' if self.with_val else 'left out (--no-val)'}",
            numbering.DESCRIPTION,
        ]
        return self._tree.facts(version=edition.version, val=self.with_val, notes=notes, **numbering.FACTS)

    def list_images(self) -> Samples:
        """Every image of the lists, sorted by (role, name); whether the files exist is not checked.

        Raises:
            DataError: a line is not a path and a person, or contains no camera.
        """
        return self._samples

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    @cached_property
    def _samples(self) -> Samples:
        lists = [name for name in LISTS if self.with_val or name != VALIDATION_LIST]
        return build_samples(row for name in lists for row in self._read_list(name))

    def _read_list(self, name: str) -> Iterator[tuple[Role, str, int, int]]:
        path, role = self.root / name, LISTS[name]
        folder = self.edition.folders[role != "train"]
        bad: list[str] = []
        for number, line in enumerate(_read_lines(path), start=1):
            if not line.strip():
                continue
            found = LINE_RULE.fullmatch(line.strip())
            if found is None:
                bad.append(f"line {number}: {line.strip()!r}")
                continue
            moved = numbering.move_person(int(found["person"]), role)
            yield role, f"{folder}/{found['path']}", moved, int(found["camera"])
        if bad:
            raise DataError(
                f"{path}: {len(bad):,} lines are not a path and a person, unlike "
                f"'0000/0000_000_01_0303morning_0008_0.jpg 0': {name_some(bad)}",
                hint="extract the list from the dataset's archive again",
            )


def has_msmt17_lists(root: Path) -> bool:
    """Whether any of the four lists is in `root`."""
    return any((root / name).is_file() for name in LISTS)


def find_msmt17_root(root: Path) -> Path:
    """The folder that contains the four lists: `root`, or the only one directly below it that contains one of them.

    Raises:
        DataError: there is none, more than one, or a list is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", hint=f"put the dataset under {root}")
    found = [root] if has_msmt17_lists(root) else [folder for folder in list_folders(root) if has_msmt17_lists(folder)]
    if len(found) > 1:
        raise DataError(
            f"{root}: contains {len(found)} copies of MSMT17: {name_some(found)}",
            hint=f"name one: lupctl data pack {found[0]} --name msmt17",
        )
    missing = [name for name in LISTS if not found or not (found[0] / name).is_file()]
    if missing:
        raise DataError(
            f"{found[0] if found else root}: MSMT17 has the lists {', '.join(LISTS)}; missing: {', '.join(missing)}",
            hint="unpack the whole archive of the dataset again",
        )
    return found[0]


def find_edition(root: Path, asked: Version | None) -> Edition:
    """V1 or V2: from the image folders, else from the user, else from the names of the folders above them.

    Raises:
        DataError: there are no image folders, or the version cannot be determined.
        UsageError: `asked` contradicts the folders.
    """
    blurred, plain = (all((root / name).is_dir() for name in names) for names in (BLURRED_FOLDERS, PLAIN_FOLDERS))
    if not blurred and not plain:
        raise DataError(
            f"{root}: has neither the folders {' and '.join(PLAIN_FOLDERS)} nor {' and '.join(BLURRED_FOLDERS)}",
            hint="unpack the whole archive of the dataset again",
        )
    if blurred and plain and asked is None:
        raise DataError(f"{root}: contains the folders of both V1 and V2", hint="choose one: --version v1")
    if blurred and not (plain and asked == "v1"):
        if asked == "v1":
            raise UsageError(
                f"{root}: --version v1, but {' and '.join(BLURRED_FOLDERS)} are V2's folders", hint="--version v2"
            )
        return Edition("v2", f"it has the folders {' and '.join(BLURRED_FOLDERS)}", BLURRED_FOLDERS)
    if asked is not None:
        return Edition(asked, f"from --version {asked}; V1 and V2 have the same folders and lists", PLAIN_FOLDERS)
    named = _version_above(root)
    if named is None:
        raise DataError(
            f"{root}: V1 and V2 (blurred faces) cannot be told apart here: lists, counts and the folders train and "
            "test are the same",
            hint="say which one it is: --version v1, or --version v2",
        )
    version, folder = named
    return Edition(version, f"its folder is named {folder}", PLAIN_FOLDERS)


def _version_above(root: Path) -> tuple[Version, str] | None:
    """The version in the name of the folder, or of the nearest one above it whose name has one."""
    versions: tuple[Version, ...] = ("v1", "v2")
    for folder in (root.absolute(), *root.absolute().parents):
        for version in versions:
            if f"msmt17_{version}" in folder.name.lower():
                return version, folder.name
    return None


def _read_lines(path: Path) -> list[str]:
    try:
        return read_text(path, LIST_BYTES, encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error})", hint="extract it from the dataset's archive again"
        ) from error
