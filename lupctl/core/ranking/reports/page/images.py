"""Pictures small enough to embed in a page."""

import base64

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg, resize_rgb

HEIGHT_PX, MOST_WIDTH_PX = 144, 144
QUALITY = 82


def embed_picture(encoded: bytes) -> str | None:
    """An encoded image as a small JPEG in a data URI, at most 144 x 144 pixels; None if it cannot be decoded."""
    try:
        pixels = decode_rgb(encoded)
    except CorruptImageError:
        return None
    scale = min(HEIGHT_PX / pixels.shape[0], MOST_WIDTH_PX / pixels.shape[1], 1.0)
    small = resize_rgb(pixels, max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(small, quality=QUALITY)).decode('ascii')}"
