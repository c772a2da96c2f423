"""Reads an image of a source in the form that a pack stores."""

from collections.abc import Callable
from dataclasses import dataclass

from lupctl.core.choices import ImageCheck
from lupctl.core.data.sources.records import CheckedSource, Source
from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg, encode_png, image_encoding, resize_rgb
from lupctl.core.formats.images.headers import plain_size

MAX_SIDE_PX = 65_535  # a side is stored as uint16


@dataclass(frozen=True)
class StoredImage:
    """An image in the form that is stored, or the reason why it cannot be stored.

    Args:
        encoded: JPEG or PNG.
        height: in pixels.
        width: in pixels.
        reason: what is wrong with it; empty for a valid image.
    """

    encoded: bytes = b""
    height: int = 0
    width: int = 0
    reason: str = ""


def build_reader(
    source: Source, *, size: tuple[int, int] | None = None, check: ImageCheck = "decode"
) -> Callable[[str], StoredImage]:
    """A function that reads one image of a source by name; may be called from several threads at once.

    Every image is decoded, except those that were decoded for another pack and have had a checksum since, and with
    `header` those of complete and plain structure.

    Args:
        source: where the images come from.
        size: height and width; if given, every image is decoded, resized and encoded again (JPEG, quality 95).
        check: the check that an image has to pass.
    """
    by_header = check == "header" and size is None
    checked = source if isinstance(source, CheckedSource) and size is None else None

    def read(name: str) -> StoredImage:
        try:
            if checked is not None and (known := checked.read_checked(name)) is not None:
                return StoredImage(*known)
            encoded = source.read(name)
            if by_header and (stated := plain_size(encoded)) is not None:
                return StoredImage(encoded, *stated)
            return _decode(encoded, size)
        except CorruptImageError as error:
            return StoredImage(reason=error.message)
        except OSError as error:
            return StoredImage(reason=f"cannot be read ({error.strerror})")

    return read


def _decode(encoded: bytes, size: tuple[int, int] | None) -> StoredImage:
    pixels = decode_rgb(encoded)
    if max(pixels.shape[:2]) > MAX_SIDE_PX:
        return StoredImage(
            reason=f"{pixels.shape[0]} x {pixels.shape[1]} pixels; a side may have at most {MAX_SIDE_PX:,}"
        )
    if size is not None:
        pixels = resize_rgb(pixels, *size)
        encoded = encode_jpeg(pixels)
    elif image_encoding(encoded) == "other":
        encoded = encode_png(pixels)
    return StoredImage(encoded, pixels.shape[0], pixels.shape[1])
