"""Heights and widths from the structure of encoded images, without decoding them."""

from array import array
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import JPEG_END, JPEG_SCAN, JPEG_START, PNG_START, check_whole, image_encoding
from lupctl.core.system.disk.limits import IMAGE_PIXELS

# Segments that every decoder knows: Huffman tables, quantisation tables, restart interval, comment, application data.
KNOWN_SEGMENTS: Final = frozenset([0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)])
# Baseline, extended and progressive with Huffman codes; arithmetic and lossless ones are left to the decoder.
JPEG_FRAMES: Final = frozenset([0xC0, 0xC1, 0xC2])
# May contain an Exif orientation, which can swap height and width.
EXIF_SEGMENT: Final = 0xE1
PNG_EXIF: Final = b"eXIf"
SIZE_BYTES: Final = 4


class _Head(NamedTuple):
    """The bytes of a JPEG before its scan, without the four bytes of its size."""

    before: bytes
    after: bytes
    size_at: int
    num_bytes: int


class HeaderReader:
    """Reads the sizes of concatenated JPEGs.

    Images from one encoder begin with the same bytes except for their size, so comparing these bytes with those of the
    previous image takes a third of the work of walking through the segments. Not thread-safe.
    """

    def __init__(self) -> None:
        self._head = _Head(b"no image begins with this", b"", 0, 0)

    def read_sizes(self, joined: bytes, offsets: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Height and width as `plain_size` finds them.

        Args:
            joined: n encoded images.
            offsets: (n+1); image i is `joined[offsets[i]:offsets[i+1]]`.

        Returns:
            (n, 2) uint16; 0 for an image that has to be decoded to find its size.
        """
        sizes = array("H")
        head = self._head
        for begin, end in pairwise(offsets.tolist()):
            at = begin + head.size_at
            if (
                joined.startswith(head.before, begin)
                and joined.startswith(head.after, at + SIZE_BYTES)
                and joined.endswith(JPEG_END, begin + head.num_bytes, end)
            ):
                # Two bytes each, the high byte first.
                sizes.append(joined[at] << 8 | joined[at + 1])
                sizes.append(joined[at + 2] << 8 | joined[at + 3])
                continue
            encoded = joined[begin:end]
            sizes.extend(plain_size(encoded) or (0, 0))
            head = self._head = _find_head(encoded) or head
        found = np.frombuffer(sizes, np.uint16).reshape(-1, 2)
        # A side of 0 is one that the structure does not state; what has too many pixels is left to the decoder's error.
        pixels = found.astype(np.int64).prod(axis=1, keepdims=True)
        return np.where((pixels > 0) & (pixels <= IMAGE_PIXELS.most), found, np.uint16(0))


def plain_size(encoded: bytes) -> tuple[int, int] | None:
    """Height and width in pixels that the structure of a whole JPEG or PNG states.

    A JPEG counts as whole when its segments lead to a scan and its last bytes are the end marker, a PNG when the
    checksum of every chunk is right and the last chunk is there. The compressed data inside is not examined.

    Returns:
        None for an image that has to be decoded to find its size: damaged, cut short, of another encoding, possibly
        rotated by Exif, or of a rare kind; and for one of more pixels than are allowed.
    """
    match image_encoding(encoded):
        case "jpeg":
            head = _find_head(encoded)
            if head is None or not encoded.endswith(JPEG_END, head.num_bytes):
                return None
            at = head.size_at
            size = int.from_bytes(encoded[at : at + 2], "big"), int.from_bytes(encoded[at + 2 : at + 4], "big")
            return size if all(size) and IMAGE_PIXELS.allows(size[0] * size[1]) else None
        case "png":
            return _png_size(encoded)
        case "other":
            return None


def _find_head(encoded: bytes) -> _Head | None:
    """The bytes before the scan of a JPEG of a common kind."""
    if not encoded.startswith(JPEG_START):
        return None
    at, size_at = 2, 0
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        end = at + 2 + (encoded[at + 2] << 8 | encoded[at + 3])
        if marker == JPEG_SCAN:
            if not size_at:
                return None
            return _Head(encoded[:size_at], encoded[size_at + SIZE_BYTES : end], size_at, end)
        if marker in JPEG_FRAMES and not size_at and end >= at + 10:
            size_at = at + 5  # after the marker, the length and the bits per sample
        elif marker not in KNOWN_SEGMENTS or marker == EXIF_SEGMENT or end < at + 4:
            return None
        at = end
    return None


def _png_size(encoded: bytes) -> tuple[int, int] | None:
    try:
        check_whole(encoded)
    except CorruptImageError:
        return None
    first = len(PNG_START)
    if encoded[first + 4 : first + 8] != b"IHDR" or PNG_EXIF in encoded:
        return None
    width, height = (int.from_bytes(encoded[at : at + 4], "big") for at in (first + 8, first + 12))
    most = np.iinfo(np.uint16).max
    is_stated = 0 < height <= most and 0 < width <= most and IMAGE_PIXELS.allows(height * width)
    return (height, width) if is_stated else None
