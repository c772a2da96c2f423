"""A dataset before it is packed: what images there are, and how to get the bytes of one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Listing:
    """The images of one dataset in parallel columns, sorted by (role, name).

    Args:
        names: (N) paths relative to the dataset's root with `/` between parts; unique.
        person: (N) int64, the dataset's own number; -1 unknown or junk.
        camera: (N) int16, as published; -1 unknown.
        role: (N) uint8, see `lupctl.core.choices.ROLE_CODES`.
    """

    names: list[str]
    person: NDArray[np.int64]
    camera: NDArray[np.int16]
    role: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)


class Source(Protocol):
    """Something that can be packed."""

    @property
    def dataset(self) -> str:
        """The name the pack will carry."""

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from (layout, root, seed, terms), for the pack's record."""

    def list_images(self) -> Listing:
        """Every image that belongs to the dataset, sorted; reads names only, never pixels."""

    def read(self, name: str) -> bytes:
        """The encoded image of one name; may be called from several threads at once."""
