"""Any tree of images, without labels."""

from functools import cached_property
from pathlib import Path

import numpy as np

from lupctl.core.choices import JUNK, ROLE_CODES, UNKNOWN_CAMERA
from lupctl.core.sources.folder import Scan, read_image, scan_images
from lupctl.core.sources.records import Listing


class ImagesSource:
    """Every image file below a folder; nothing is known about who is on it.

    Args:
        root: the folder.
        dataset: the name the pack will carry.
        terms: terms of use, where they are known.
    """

    def __init__(self, root: Path, *, dataset: str, terms: str = "") -> None:
        self.root = root
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
            "layout": "images",
            "root": str(self.root),
            "terms": self._terms,
            "ignored": self._scan.num_ignored,
        }

    def list_images(self) -> Listing:
        """Every image, sorted by name.

        Raises:
            DataError: no such folder, or no image in it.
        """
        names = self._scan.names
        return Listing(
            names=names,
            person=np.full(len(names), JUNK, np.int64),
            camera=np.full(len(names), UNKNOWN_CAMERA, np.int16),
            role=np.full(len(names), ROLE_CODES["unlabelled"], np.uint8),
        )

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return read_image(self._root, name)

    @cached_property
    def _scan(self) -> Scan:
        return scan_images(self.root)
