"""Encoded images: their encoding, whether they are complete, and their pixels."""

import functools
import zlib
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.system.disk.limits import IMAGE_PIXELS

Encoding = Literal["jpeg", "png", "other"]

JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
JPEG_SCAN = 0xDA
JPEG_QUALITY = 95
PNG_START = b"\x89PNG\r\n\x1a\n"
DECODERS_LIMIT = "CV_IO_MAX_IMAGE_PIXELS"
HINT = "lupctl data verify lists every image that cannot be read"


def image_encoding(encoded: bytes) -> Encoding:
    """The encoding according to the first bytes; file names are never consulted."""
    if encoded.startswith(JPEG_START):
        return "jpeg"
    return "png" if encoded.startswith(PNG_START) else "other"


def decode_rgb(encoded: bytes) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) of an encoded image, turned upright according to its EXIF entry.

    Some decoders silently fill the missing part of a JPEG that was cut short with grey, so its end marker is checked
    first.

    Raises:
        CorruptImageError: empty, not an image, cut short or damaged; or it has too many pixels, see `limit_pixels`.
    """
    check_whole(encoded)
    _silence_decoder()
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if DECODERS_LIMIT in str(error):
            most = f"more pixels than the {IMAGE_PIXELS.most:,} that {IMAGE_PIXELS.variable} allows"
            raise CorruptImageError(most, hint=IMAGE_PIXELS.hint(8 * IMAGE_PIXELS.most)) from error
        raise CorruptImageError(f"does not decode ({str(error).splitlines()[0]})", hint=HINT) from error
    if pixels is None:
        raise CorruptImageError(f"does not decode ({_describe_start(encoded)})", hint=HINT)
    return pixels.astype(np.uint8, copy=False)


def check_whole(encoded: bytes) -> None:
    """Reject what is recognisably incomplete without decoding it.

    Raises:
        CorruptImageError: empty, a JPEG without its end marker, a PNG with a missing or damaged chunk.
    """
    if not encoded:
        raise CorruptImageError("empty, 0 bytes", hint=HINT)
    match image_encoding(encoded):
        case "jpeg":
            if not encoded.endswith(JPEG_END) and not _jpeg_ends(encoded):
                raise CorruptImageError("a JPEG that is cut short, its end marker is missing", hint=HINT)
        case "png":
            _check_png(encoded)
        case "other":
            return


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of RGB pixels (H, W, 3); decoding it gives the same pixels."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done, "OpenCV encodes every 8-bit RGB image as PNG"
    return encoded.tobytes()


def encode_jpeg(pixels: NDArray[np.uint8], *, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of RGB pixels (H, W, 3)."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
    assert done, "OpenCV encodes every 8-bit RGB image as JPEG"
    return encoded.tobytes()


def resize_rgb(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) at another size: area averaging if both sides shrink, else bilinear."""
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def _jpeg_ends(encoded: bytes) -> bool:
    """Whether there is an end marker after the first scan; cameras append their own bytes after it.

    Segments before the scan are skipped, because the preview picture inside one has an end marker as well.
    """
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == JPEG_SCAN:
            return encoded.find(JPEG_END, at) >= 0
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return False


def _check_png(encoded: bytes) -> None:
    at = len(PNG_START)
    while at + 12 <= len(encoded):
        length = int.from_bytes(encoded[at : at + 4], "big")
        end = at + 12 + length
        if end > len(encoded):
            break
        kind = encoded[at + 4 : at + 8]
        if zlib.crc32(encoded[at + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end], "big"):
            raise CorruptImageError(f"a PNG whose {kind.decode('ascii', 'replace')} chunk is damaged", hint=HINT)
        if kind == b"IEND":
            return
        at = end
    raise CorruptImageError("a PNG that is cut short, its end chunk is missing", hint=HINT)


def _describe_start(encoded: bytes) -> str:
    start = encoded[:8]
    if start.isascii() and start.decode("ascii").isprintable():
        return f"begins with the text {start.decode('ascii')!r}"
    return f"begins with the bytes {start.hex(' ')}"


@functools.cache
def _silence_decoder() -> None:
    # OpenCV prints its own messages about images that it rejects; ours name the file.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
