"""The common part of sources of image files: the files, the facts about them, and sorted samples."""

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lupctl.core.choices import ROLE_CODES, UNKNOWN_CAMERA, Layout, Role
from lupctl.core.data.sources.folder import Scan, scan_images
from lupctl.core.errors import DataError
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import name_some
from lupctl.core.system.strings import StringColumn, StringColumnBuilder, sort_rows


class ImageTree:
    """Image files below a folder.

    Args:
        root: the folder that names are relative to.
        layout: how the files are arranged.
        terms: terms of use, if known.
        folders: the subfolders that contain images; all of `root` by default.
    """

    def __init__(self, root: Path, *, layout: Layout, terms: str, folders: Sequence[str] = ("",)) -> None:
        self.root = root
        self._root = str(root)
        self._layout = layout
        self._terms = terms
        self._folders = tuple(folders)

    @cached_property
    def scan(self) -> Scan:
        """The image files, listed once.

        Raises:
            DataError: no such folder, or no image in it.
        """
        return scan_images(self.root, folders=self._folders)

    def facts(self, **more: object) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        scan = vars(self).get("scan")  # a layout with a list of its own never asks for one
        left_out = {"left_out": list(scan.left_out)} if scan is not None and scan.left_out else {}
        return {"layout": self._layout, "root": self._root, "terms": self._terms, **left_out, **more}

    def read(self, name: str) -> bytes:
        """The bytes of one image file.

        Raises:
            OSError: it cannot be read.
        """
        return read_encoded(f"{self._root}/{name}")

    def refuse(self, names: Sequence[str], what: str, *, hint: str) -> None:
        """Raises if there are offending names.

        Raises:
            DataError: `names` is not empty; the message gives their number and the first five.
        """
        if names:
            raise DataError(f"{self.root}: {len(names):,} names {what}: {name_some(names)}", hint=hint)


def build_samples(rows: Iterable[tuple[Role, str, int, int]]) -> Samples:
    """Samples from rows (role, name, person, camera) in any order; a name may occur twice."""
    names, person, camera, role = StringColumnBuilder(), array("q"), array("h"), array("B")
    for role_name, name, number, camera_number in rows:
        names.append(name)
        person.append(number)
        camera.append(camera_number)
        role.append(ROLE_CODES[role_name])
    return sort_samples(
        Samples(
            person=np.frombuffer(person, np.int64),
            camera=np.frombuffer(camera, np.int16),
            role=np.frombuffer(role, np.uint8),
            name=names.build(),
        )
    )


def sort_samples(samples: Samples) -> Samples:
    """The samples sorted by (role, name)."""
    by_name = sort_rows(samples.name)
    return samples.select(by_name[np.argsort(samples.role[by_name], kind="stable")])


def build_uniform(names: StringColumn, persons: Iterable[int], role: Role) -> Samples:
    """Samples of sorted names, all in one role and without cameras."""
    count = len(names)
    return Samples(
        name=names,
        person=np.fromiter(persons, np.int64, count),
        camera=np.full(count, UNKNOWN_CAMERA, np.int16),
        role=np.full(count, ROLE_CODES[role], np.uint8),
    )
