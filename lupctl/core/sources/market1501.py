"""Market-1501's layout: three folders, and person and camera in every file name (Zheng et al. 2015)."""

import re
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.errors import DataError
from lupctl.core.sources.folder import Scan, describe_some, read_image, scan_images
from lupctl.core.sources.records import Listing

FOLDERS: Final[dict[str, Role]] = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
# 0002_c1s1_000841_01.jpg: person, camera, sequence, frame, box. Person -1 is junk, 0000 a distractor.
# Only the beginning is needed, and the family of datasets that copied the rule differs in the rest.
NAME_RULE = re.compile(r"(-1|\d{1,18})_c(\d{1,4})(?!\d)")


class Market1501Source:
    """A folder in Market-1501's layout, or one that holds such a folder, as the published archive does.

    Args:
        root: the folder.
        dataset: the name the pack will carry.
        terms: terms of use, where they are known.

    Raises:
        DataError: the three folders are not there.
    """

    def __init__(self, root: Path, *, dataset: str = "market1501", terms: str = "") -> None:
        self.root = find_market_root(root)
        self._root = str(self.root)
        self._dataset = dataset
        self._terms = terms

    @property
    def dataset(self) -> str:
        """The name the pack will carry."""
        return self._dataset

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        return {
            "layout": "market1501",
            "root": str(self.root),
            "terms": self._terms,
            "ignored": self._scan.num_ignored,
        }

    def list_images(self) -> Listing:
        """Every image of the three folders, sorted by (role, name).

        Raises:
            DataError: no image, or names that do not follow the rule.
        """
        rows: list[tuple[int, str, int, int]] = []
        strange: list[str] = []
        for name in self._scan.names:
            folder, _, file_name = name.partition("/")
            found = NAME_RULE.match(file_name.rpartition("/")[2])
            if found is None:
                strange.append(name)
            else:
                rows.append((ROLE_CODES[FOLDERS[folder]], name, int(found[1]), int(found[2])))
        if strange:
            raise DataError(
                f"{self.root}: {len(strange):,} of {len(self._scan.names):,} file names name no person and camera, "
                f"as 0002_c1s1_000841_01.jpg does: {describe_some(strange)}",
                hint="rename or remove these files, or pack with --layout images (no labels) or --layout persons",
            )
        rows.sort()
        return Listing(
            names=[name for _, name, _, _ in rows],
            person=np.array([person for _, _, person, _ in rows], np.int64),
            camera=np.array([camera for _, _, _, camera in rows], np.int16),
            role=np.array([role for role, _, _, _ in rows], np.uint8),
        )

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return read_image(self._root, name)

    @cached_property
    def _scan(self) -> Scan:
        return scan_images(self.root, folders=tuple(FOLDERS))


def has_market_folders(root: Path) -> bool:
    """Whether the three folders lie in `root`."""
    return all((root / folder).is_dir() for folder in FOLDERS)


def find_market_root(root: Path) -> Path:
    """The folder that holds the three folders: `root`, or the only one directly below it that does.

    Raises:
        DataError: there is none, or more than one.
    """
    if has_market_folders(root):
        return root
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", hint=f"put the dataset under {root}")
    below = sorted(folder for folder in root.iterdir() if folder.is_dir() and has_market_folders(folder))
    if len(below) == 1:
        return below[0]
    if below:
        raise DataError(
            f"{root}: holds {len(below)} datasets in Market-1501's layout: {describe_some(map(str, below))}",
            hint=f"name one: lupctl data pack {below[0]} --layout market1501 --name {below[0].name}",
        )
    there = describe_some(sorted(entry.name for entry in root.iterdir())) or "nothing"
    raise DataError(
        f"{root}: Market-1501's layout has the folders {', '.join(FOLDERS)}; found {there}",
        hint=f"put the three folders under {root}, or say what it is with --layout",
    )
