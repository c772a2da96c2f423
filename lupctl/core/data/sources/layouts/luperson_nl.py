"""LUPerson-NL's crops: a noisy person number in every file name (Fu et al. 2022, arXiv 2203.16533)."""

import re
from pathlib import Path

from lupctl.core.data.sources.tree import ImageTree, build_uniform
from lupctl.core.formats.pack.samples import Samples

# 000123_0004567_02.jpg: person, frame, object within the frame; below country/city/video.
NAME_RULE = re.compile(r"(\d{6})_\d{7}_\d{2}\.\w+")


class LupersonNlSource:
    """Crops of tracked persons: the track number is used as the person number, and is sometimes wrong.

    All images are for training; cameras are unknown.

    Args:
        root: the folder that contains country/city/video.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
    """

    def __init__(self, root: Path, *, dataset: str = "luperson-nl", terms: str = "") -> None:
        self.root = root
        self.dataset = dataset
        self._tree = ImageTree(root, layout="luperson-nl", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        return self._tree.facts(ignored=self._tree.scan.num_ignored)

    def list_images(self) -> Samples:
        """Every image, sorted by name.

        Raises:
            DataError: no image, or names without a person.
        """
        names = self._tree.scan.names
        self._tree.refuse(
            [name for name in names if not names_person(name)],
            "contain no person, unlike 000123_0004567_02.jpg (person, frame, object)",
            hint="pack them without persons: --layout images",
        )
        # The rule fixes where the digits are.
        return build_uniform(names, (int(name[name.rfind("/") + 1 :][:6]) for name in names), "train")

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)


def names_person(name: str) -> bool:
    """Whether a path's last part follows LUPerson-NL's rule.

    >>> names_person("us/boston/-5Q9cKUWgAM/000123_0004567_02.jpg"), names_person("0001_c2_8.png")
    (True, False)
    """
    return NAME_RULE.fullmatch(name, name.rfind("/") + 1) is not None
