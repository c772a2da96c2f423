"""Pictures small enough to embed in a page."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg, resize_rgb

HEIGHT_PX, MOST_WIDTH_PX = 144, 144
QUALITY = 82
# Of a heat map: how dark the grey image under it is, and how much of the colour covers it where the heat is greatest.
DARKNESS, COVER = 0.75, 0.8


def embed_picture(encoded: bytes) -> str | None:
    """An encoded image as a small JPEG in a data URI, at most 144 x 144 pixels; None if it cannot be decoded."""
    try:
        return _as_uri(_decode_small(encoded))
    except CorruptImageError:
        return None


def embed_heat(encoded: bytes, heat: NDArray[np.float32]) -> str:
    """An image as `embed_picture` gives it, in grey, under a heat map.

    Args:
        encoded: the image.
        heat: (h, w), at least 0; stretched over the image, and over the colours from 0 to its own greatest value.

    Raises:
        CorruptImageError: it cannot be decoded.
    """
    return _as_uri(draw_heat(_decode_small(encoded), heat))


def draw_heat(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) in grey under a heat map (h, w): dark where it is 0, bright yellow at its greatest value."""
    height, width = pixels.shape[:2]
    level = cv2.resize(heat / max(float(heat.max()), 1e-12), (width, height), interpolation=cv2.INTER_CUBIC)
    level = np.clip(level, 0, 1)
    colours = cv2.applyColorMap((255 * level).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    grey = DARKNESS * cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    cover = COVER * level[:, :, None]
    mixed: NDArray[np.uint8] = (grey * (1 - cover) + colours * cover).round().astype(np.uint8)
    return mixed


def _decode_small(encoded: bytes) -> NDArray[np.uint8]:
    pixels = decode_rgb(encoded)
    scale = min(HEIGHT_PX / pixels.shape[0], MOST_WIDTH_PX / pixels.shape[1], 1.0)
    return resize_rgb(pixels, max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))


def _as_uri(pixels: NDArray[np.uint8]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, quality=QUALITY)).decode('ascii')}"
