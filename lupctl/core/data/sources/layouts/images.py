"""Any folder tree of images, without labels."""

import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

from lupctl.core.choices import JUNK
from lupctl.core.data.sources.tree import ImageTree, build_uniform
from lupctl.core.formats.pack.samples import Samples

# country/city/{frame:08d}_{object:04d}.jpg, as LUPerson's published script writes it.
WITHOUT_VIDEO = re.compile(r"[^/]+/[^/]+/\d{8}_\d{4}\.jpg")
COLLISIONS = (
    "names are country/city/frame_object without the video, as LUPerson's published script writes them: if two "
    "videos of a city had the same frame and object, it kept one crop and dropped the other"
)


class ImagesSource:
    """Every image file below a folder; who is in it is unknown.

    Args:
        root: the folder.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
    """

    def __init__(self, root: Path, *, dataset: str, terms: str = "") -> None:
        self.root = root
        self.dataset = dataset
        self._tree = ImageTree(root, layout="images", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        scan = self._tree.scan
        known = {"notes": [COLLISIONS]} if WITHOUT_VIDEO.fullmatch(scan.names[0]) else {}
        return self._tree.facts(ignored=scan.num_ignored, **known)

    @property
    def left_out(self) -> Sequence[str]:
        """Names of images that are no regular files."""
        return self._tree.scan.left_out

    def list_images(self) -> Samples:
        """Every image, sorted by name.

        Raises:
            DataError: no such folder, or no image in it.
        """
        return build_uniform(self._tree.scan.names, repeat(JUNK), "unlabelled")

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)
