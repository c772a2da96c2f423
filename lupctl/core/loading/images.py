"""Images of packs and of plain folders as data sets, and images of any sizes in one tensor."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.images import decode_rgb
from lupctl.core.formats.pack import Pack

# A damaged image is replaced by the next row of its pack; a run of damage this long is a damaged pack.
REPLACEMENT_TRIES = 16


class PackImages:
    """Chosen rows of one or more packs as one data set.

    Args:
        packs: in the order that numbers the rows.
        rows: (N) rows of the concatenated packs; None takes all.
    """

    def __init__(self, packs: Sequence[Pack], rows: NDArray[np.int64] | None = None) -> None:
        self._packs = list(packs)
        self._ends = np.cumsum([len(pack) for pack in packs])
        self.rows = np.arange(int(self._ends[-1])) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Raises:
            CorruptImageError: the bytes are not those that were packed, or no image.
        """
        row = int(self.rows[index])
        pack = int(np.searchsorted(self._ends, row, side="right"))
        start = 0 if pack == 0 else int(self._ends[pack - 1])
        return decode_rgb(self._packs[pack].read(row - start))

    def decode_or_next(self, index: int) -> tuple[int, NDArray[np.uint8], list[str]]:
        """Image `index`, or the next one that can be decoded.

        Returns:
            the index that was read, its pixels, and what was wrong with the ones passed over.

        Raises:
            DataError: too many in a row are damaged.
        """
        damage: list[str] = []
        for offset in range(min(REPLACEMENT_TRIES, len(self))):
            place = (index + offset) % len(self)
            try:
                return place, self.decode(place), damage
            except CorruptImageError as error:
                damage.append(error.message)
        raise DataError(
            f"{damage[0]}; so are the {len(damage) - 1} images after it", hint="lupctl data verify PACK --deep"
        )


def stack_images(images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, NDArray[np.int64]]:
    """Images of any sizes in one tensor, each in the top left corner of its slot.

    Returns:
        (B, H, W, 3) uint8, and the (B, 2) heights and widths.
    """
    size = np.array([image.shape[:2] for image in images], dtype=np.int64)
    height, width = (int(most) for most in size.max(axis=0))
    stacked = _new_pixels(len(images), height, width)
    slots = stacked.numpy()
    if bool((size == size[0]).all()):
        np.stack(images, out=slots)
        return stacked, size
    slots[:] = 0
    for slot, image in zip(slots, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return stacked, size


def _new_pixels(count: int, height: int, width: int) -> Tensor:
    """Room for a batch; in a worker it is shared with the loop from the start, which saves copying it there."""
    if get_worker_info() is None:
        return torch.empty(count, height, width, 3, dtype=torch.uint8)
    number = count * height * width * 3
    storage = torch.UntypedStorage._new_shared(number)  # type: ignore[no-untyped-call]
    strides = (height * width * 3, width * 3, 3, 1)
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (count, height, width, 3), strides)


class FileImages:
    """Image files as a data set, for folders that were never packed.

    Args:
        paths: one per image.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Raises:
            CorruptImageError: the file is no image.
        """
        with open(self._paths[index], "rb") as stream:  # noqa: PTH123 - a str per image, not a Path
            encoded = stream.read()
        try:
            return decode_rgb(encoded)
        except CorruptImageError as error:
            raise CorruptImageError(
                f"{self._paths[index]}: {error.message}", hint="remove the file, or repair it"
            ) from error
