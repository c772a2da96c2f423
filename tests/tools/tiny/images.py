"""Tiny pictures, the same in every run."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

TinyImages = Callable[..., list[bytes]]


def draw_tiny(seed: int, height: int = 32, width: int = 16) -> NDArray[np.uint8]:
    """A smooth random picture (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def encode_tiny(seed: int, suffix: str = ".jpg", height: int = 32, width: int = 16) -> bytes:
    """The same picture, encoded."""
    done, encoded = cv2.imencode(suffix, draw_tiny(seed, height, width))
    assert done
    return encoded.tobytes()


def decode_bgr(encoded: bytes) -> NDArray[np.uint8]:
    """An encoded image as OpenCV gives it, (H, W, 3)."""
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)
