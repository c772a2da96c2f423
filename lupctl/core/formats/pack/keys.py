"""What tells the images of a pack apart, without their names and without the images themselves."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.pack.read import pack_files
from lupctl.core.formats.pack.shards import HINT, PACK_FORMAT
from lupctl.core.formats.record import open_recorded


@dataclass(frozen=True)
class ImageKeys:
    """N images as parallel columns, in the order of the pack's rows.

    Args:
        path: the pack.
        key: (N) uint64, the checksum of the encoded bytes and their number: equal for equal images, and rarely equal
            otherwise.
        person: (N) int64, as in the pack.
        role: (N) uint8, as in the pack.
    """

    path: Path
    key: NDArray[np.uint64]
    person: NDArray[np.int64]
    role: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.key)


def read_keys(path: Path) -> ImageKeys:
    """The keys of all images of a pack; three columns are read, and no names.

    Raises:
        DataError: there is no such pack.
        FormatError: it is damaged.
    """
    keys: list[NDArray[np.uint64]] = []
    persons: list[NDArray[np.int64]] = []
    roles: list[NDArray[np.uint8]] = []
    for part in pack_files(path):
        with open_recorded(part, "pack", PACK_FORMAT, hint=HINT) as (file, _):
            checksum = file["images/crc32"][()].astype(np.uint64)
            num_bytes = np.diff(file["images/offsets"][()].astype(np.uint64))
            keys.append(checksum << np.uint64(32) | num_bytes & np.uint64(0xFFFFFFFF))
            persons.append(file["samples/person"][()].astype(np.int64, copy=False))
            roles.append(file["samples/role"][()].astype(np.uint8, copy=False))
    return ImageKeys(path, np.concatenate(keys), np.concatenate(persons), np.concatenate(roles))


def count_images(path: Path) -> int:
    """The number of images in a pack, without reading a column.

    Raises:
        DataError: there is no such pack.
        FormatError: it is damaged.
    """
    total = 0
    for part in pack_files(path):
        with open_recorded(part, "pack", PACK_FORMAT, hint=HINT) as (file, _):
            total += int(file["images/crc32"].shape[0])
    return total
