"""Images of packs and of plain folders as data sets."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.pack.read import Pack, Place
from lupctl.core.system.disk.reading import SpecialFileError
from lupctl.core.system.strings import build_column

# A damaged image is replaced by the next row of its pack; this many damaged images in a row mean a damaged pack.
REPLACEMENT_TRIES = 16

Found = tuple[Pack, Place]


class PackImages:
    """Chosen rows of one or more packs as one data set.

    Args:
        packs: in the order in which their rows are numbered.
        rows: (N) rows of the concatenated packs; None takes all.
    """

    def __init__(self, packs: Sequence[Pack], rows: NDArray[np.int64] | None = None) -> None:
        self._packs = list(packs)
        self._starts = [0, *accumulate(len(pack) for pack in packs)]
        self.rows = np.arange(self._starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def bound(self, indices: NDArray[np.int64]) -> tuple[int, int]:
        """The greatest height and width of some images, as packed."""
        height, width = self.sizes(indices).max(axis=0).tolist()
        return height, width

    def sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, 2) heights and widths of some images, as packed."""
        sizes = np.empty((len(indices), 2), np.int64)
        for pack, chosen, rows in self._split(indices):
            sizes[chosen] = pack.size[rows]
        return sizes

    def find(self, indices: NDArray[np.int64]) -> list[Found]:
        """The pack and location of each of the given images, looked up together."""
        found: dict[int, Found] = {}
        for pack, chosen, rows in self._split(indices):
            found.update(zip(chosen.tolist(), zip(repeat(pack), pack.find(rows), strict=False), strict=False))
        return [found[position] for position in range(len(indices))]

    def decode(self, index: int, found: Found | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Args:
            index: from 0 to N-1.
            found: the result of `find` for it, if known.

        Raises:
            CorruptImageError: the bytes are not those that were packed, or not an image.
        """
        if found is None:
            return decode_rgb(self.read(index))
        pack, place = found
        return decode_rgb(pack.read_place(place))

    def read(self, index: int) -> bytes:
        """Image `index`, encoded.

        Raises:
            CorruptImageError: the bytes are not those that were packed.
        """
        pack, row = self._locate(index)
        return pack.read(row)

    def name(self, index: int) -> str:
        """The name of image `index` in its dataset."""
        pack, row = self._locate(index)
        return pack.samples.name[row]

    def describe(self, index: int) -> str:
        """Pack, row and name of image `index`, for messages."""
        pack, row = self._locate(index)
        return f"{pack.path}: image {row} ({pack.samples.name[row]})"

    def decode_or_next(self, index: int, found: Found | None = None) -> tuple[int, NDArray[np.uint8], list[str]]:
        """Image `index`, or the next one that can be decoded.

        Args:
            index: from 0 to N-1.
            found: the result of `find` for it, if known.

        Returns:
            the index that was read, its pixels, and the errors of the images skipped before it.

        Raises:
            DataError: too many images in a row are damaged.
        """
        damage: list[str] = []
        for offset in range(min(REPLACEMENT_TRIES, len(self))):
            chosen = (index + offset) % len(self)
            try:
                return chosen, self.decode(chosen, None if offset else found), damage
            except CorruptImageError as error:
                damage.append(error.message)
        raise DataError(
            f"{damage[0]}; the {len(damage) - 1} images after it are damaged too", hint="lupctl data verify PACK --deep"
        )

    def _locate(self, index: int) -> tuple[Pack, int]:
        """The pack of an image, and its row there."""
        row = int(self.rows[index])
        number = bisect_right(self._starts, row) - 1
        return self._packs[number], row - self._starts[number]

    def _split(self, indices: NDArray[np.int64]) -> Iterator[tuple[Pack, NDArray[np.int64], NDArray[np.int64]]]:
        """Each pack with any of the images, their positions among the indices, and their rows in it."""
        rows = self.rows[indices]
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for number, pack in enumerate(self._packs):
            chosen = np.flatnonzero(owners == number)
            if len(chosen):
                yield pack, chosen, rows[chosen] - self._starts[number]


class FileImages:
    """Image files as a data set, for folders that were never packed.

    Args:
        paths: one per image.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = build_column(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def describe(self, index: int) -> str:
        """The file of image `index`."""
        return self._paths[index]

    def bound(self, indices: NDArray[np.int64]) -> tuple[int, int]:
        """The least bound: sizes are unknown before decoding."""
        return 1, 1

    def decode(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Raises:
            CorruptImageError: the file is not an image, or none that can be opened.
            DataError: the disk does not give it.
        """
        try:
            return decode_rgb(read_encoded(self._paths[index]))
        except (CorruptImageError, SpecialFileError, FileNotFoundError) as error:
            reason = error.message if isinstance(error, CorruptImageError) else f"cannot be read ({error.strerror})"
            raise CorruptImageError(f"{self._paths[index]}: {reason}", hint="remove the file, or repair it") from error
        except OSError as error:  # of a disk or a network, which may give it the next time
            message = f"{self._paths[index]}: cannot be read ({error.strerror})"
            raise DataError(message, hint=f"ls -l {self._paths[index]}") from error
