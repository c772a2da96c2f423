"""Market-1501's layout: three folders, and person and camera in every file name (Zheng et al. 2015)."""

import re
from functools import cached_property
from pathlib import Path
from typing import Final

from lupctl.core.choices import DISTRACTOR, Role, Version
from lupctl.core.data.catalog.datasets import catalog_entry
from lupctl.core.data.sources.folder import list_folders
from lupctl.core.data.sources.layouts import numbering
from lupctl.core.data.sources.tree import ImageTree, build_samples
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import name_some

FOLDERS: Final[dict[str, Role]] = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
# 0002_c1s1_000841_01.jpg: person, camera, sequence, frame, box. Person -1 is junk, 0000 a distractor.
# Only the beginning is needed; the datasets that copied the rule differ in the rest.
NAME_RULE = re.compile(r"(-1|\d{1,18})_c(\d{1,4})(?!\d)")


# DukeMTMC-reID's own naming scheme: person, camera, frame of the whole recording.
DUKE_RULE = re.compile(r"/\d{4}_c[1-8]_f\d{7}\.jpg$")
# One circulating copy of MSMT17 in this layout lost part of its gallery (github.com/zhunzhong07/ECN/issues/11).
SHORT_MSMT17_GALLERY = 60_910

Row = tuple[Role, str, int, int]


class Market1501Source:
    """A folder in Market-1501's layout, or one that contains such a folder, as the published archive does.

    In the datasets that share this layout, person 0 is a distractor of the gallery. Where it is a training person, as
    in the re-layout of MSMT17 that LUPerson's fine-tuning used, the numbers are shifted: see `numbering`.

    Args:
        root: the folder.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
        version: of MSMT17, if the user gives it; the layout does not show it.

    Raises:
        DataError: the three folders are missing.
    """

    def __init__(
        self, root: Path, *, dataset: str = "market1501", terms: str = "", version: Version | None = None
    ) -> None:
        self.root = find_market_root(root)
        self.dataset = dataset
        self._tree = ImageTree(self.root, layout="market1501", terms=terms, folders=tuple(FOLDERS))
        self._version = version

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record.

        Raises:
            DataError: no image, or names that do not follow the rule.
        """
        scan = self._tree.scan
        known: dict[str, object] = {}
        if self.dataset == "msmt17":
            known["version"] = self._version or "unknown"
        if self._counts_from_zero:
            known |= {"notes": [self._describe_zero()], **numbering.FACTS}
        if self.dataset == "dukemtmc" or any(DUKE_RULE.search(name) for name in scan.names):
            known["notice"] = catalog_entry("dukemtmc").terms
        return self._tree.facts(ignored=scan.num_ignored, **known)

    def list_images(self) -> Samples:
        """Every image of the three folders, sorted by (role, name).

        Raises:
            DataError: no image, or names that do not follow the rule.
        """
        if not self._counts_from_zero:
            return build_samples(self._rows)
        moved = ((role, name, numbering.move_person(person, role), camera) for role, name, person, camera in self._rows)
        return build_samples(moved)

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    @cached_property
    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        strange: list[str] = []
        for name in self._tree.scan.names:
            folder, _, file_name = name.partition("/")
            found = NAME_RULE.match(file_name.rpartition("/")[2])
            if found is None:
                strange.append(name)
            else:
                rows.append((FOLDERS[folder], name, int(found[1]), int(found[2])))
        if strange:
            raise DataError(
                f"{self.root}: {len(strange):,} of {len(self._tree.scan.names):,} file names contain no person and "
                f"camera, unlike 0002_c1s1_000841_01.jpg: {name_some(strange)}",
                hint="rename or remove these files, or pack with --layout images (no labels) or --layout persons",
            )
        return rows

    @cached_property
    def _counts_from_zero(self) -> bool:
        return self.dataset == "msmt17" or any(
            person == DISTRACTOR and role == "train" for role, _, person, _ in self._rows
        )

    def _describe_zero(self) -> str:
        gallery = sum(role == "gallery" for role, _, _, _ in self._rows)
        short = (
            f"; its gallery of {gallery:,} images is the cut copy in circulation"
            if gallery == SHORT_MSMT17_GALLERY
            else ""
        )
        return f"{numbering.DESCRIPTION}{short}"


def has_market_folders(root: Path) -> bool:
    """Whether `root` contains the three folders."""
    return all((root / folder).is_dir() for folder in FOLDERS)


def find_market_root(root: Path) -> Path:
    """The folder that contains the three folders: `root`, or the only one directly below it that does.

    Raises:
        DataError: there is none, or more than one.
    """
    if has_market_folders(root):
        return root
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", hint=f"put the dataset under {root}")
    below = [folder for folder in list_folders(root) if has_market_folders(folder)]
    if len(below) == 1:
        return below[0]
    if below:
        raise DataError(
            f"{root}: contains {len(below)} datasets in Market-1501's layout: {name_some(below)}",
            hint=f"name one: lupctl data pack {below[0]} --layout market1501 --name {below[0].name}",
        )
    there = name_some(sorted(entry.name for entry in root.iterdir())) or "nothing"
    raise DataError(
        f"{root}: Market-1501's layout has the folders {', '.join(FOLDERS)}; found {there}",
        hint=f"put the three folders under {root}, or name the layout with --layout",
    )
