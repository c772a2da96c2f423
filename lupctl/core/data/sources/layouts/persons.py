"""One folder per person."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lupctl.core.choices import UNKNOWN_CAMERA, CameraRule, Role
from lupctl.core.data.sources.tree import ImageTree, build_samples
from lupctl.core.formats.pack.samples import Samples

ROLE_FOLDERS: Final[dict[str, Role]] = {"train": "train", "query": "query", "gallery": "gallery"}
NUMBER = re.compile(r"-1|\d{1,18}")
MARKET_CAMERA = re.compile(r"_c(\d{1,4})(?!\d)")
PREFIX_CAMERA = re.compile(r"c?(\d{1,4})_")
FOLDER_CAMERA = re.compile(r"(?:c|cam|camera)?[_-]?(\d{1,4})", re.IGNORECASE)
CAMERA_EXAMPLES: Final[dict[CameraRule, str]] = {
    "none": "",
    "market": "0002_c3s1_000841.jpg",
    "prefix": "c3_000841.jpg or 3_000841.jpg",
    "folder": "person/3/000841.jpg or person/cam3/000841.jpg",
}


class PersonsSource:
    """A folder per person, or the folders train, query and gallery with a folder per person in each.

    If all folder names are numbers, they are kept (0 is read as a distractor, -1 as junk); otherwise persons are
    numbered from 1 in the sorted order of their folder names, across all roles.

    Args:
        root: the folder.
        dataset: the name to store in the pack.
        cameras: where the camera number is found: `none` (unknown), `market` (`_c3` in the file name), `prefix` (the
            file name begins with `c3_` or `3_`), `folder` (person/camera/image).
        terms: terms of use, if known.
    """

    def __init__(self, root: Path, *, dataset: str, cameras: CameraRule = "none", terms: str = "") -> None:
        self.root = root
        self.cameras = cameras
        self.dataset = dataset
        self._tree = ImageTree(root, layout="persons", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        return self._tree.facts(cameras=self.cameras, ignored=self._tree.scan.num_ignored)

    def list_images(self) -> Samples:
        """Every image, sorted by (role, name).

        Raises:
            DataError: no image, images outside a person's folder, or names without a camera.
        """
        has_roles = self._has_roles()
        names = self._tree.scan.names
        parts = [name.split("/") for name in names]
        depth = 1 if has_roles else 0
        self._tree.refuse(
            [name for name, part in zip(names, parts, strict=True) if len(part) < depth + 2],
            "are in no person's folder",
            hint="use one folder per person, or pack without labels: --layout images",
        )
        cameras = [self._camera(part[depth + 1 :]) for part in parts]
        self._tree.refuse(
            [name for name, camera in zip(names, cameras, strict=True) if camera is None],
            f"contain no camera, unlike {CAMERA_EXAMPLES[self.cameras]} (--cameras {self.cameras})",
            hint="use another --cameras: none, market, prefix or folder",
        )
        known = [camera for camera in cameras if camera is not None]
        numbers = self._number_persons(sorted({part[depth] for part in parts}))
        return build_samples(
            (ROLE_FOLDERS[part[0]] if has_roles else "train", name, numbers[part[depth]], camera)
            for name, part, camera in zip(names, parts, known, strict=True)
        )

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    def _has_roles(self) -> bool:
        tops = {name.partition("/")[0] for name in self._tree.scan.names}
        if tops.isdisjoint(ROLE_FOLDERS):
            return False
        self._tree.refuse(
            sorted(tops - set(ROLE_FOLDERS)),
            "are next to the folders train, query and gallery",
            hint="move them into one of the three, or out of the dataset",
        )
        return True

    def _camera(self, path: Sequence[str]) -> int | None:
        """The camera of an image from its path below the person's folder, or None if the rule finds none."""
        match self.cameras:
            case "none":
                return UNKNOWN_CAMERA
            case "market":
                found = MARKET_CAMERA.search(path[-1])
            case "prefix":
                found = PREFIX_CAMERA.match(path[-1])
            case "folder":
                found = FOLDER_CAMERA.fullmatch(path[0]) if len(path) > 1 else None
        return int(found[1]) if found else None

    def _number_persons(self, folders: list[str]) -> dict[str, int]:
        if not all(NUMBER.fullmatch(folder) for folder in folders):
            return {folder: number for number, folder in enumerate(folders, start=1)}
        numbers = {folder: int(folder) for folder in folders}
        if len(set(numbers.values())) < len(folders):
            twice = [folder for folder in folders if list(numbers.values()).count(numbers[folder]) > 1]
            self._tree.refuse(twice, "are the same number in different spellings", hint="rename the folders")
        return numbers
