"""Noise that is drawn once and reused; which part is used depends on the caller's key alone."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 512


@lru_cache(maxsize=8)
def soft_noise(sigma: float) -> NDArray[np.float32]:
    """Blurred noise of mean 0 and deviation 1 that tiles without a seam (512, 512)."""
    noise = np.random.Generator(np.random.PCG64(30)).random((SIDE, SIDE), np.float32) - 0.5
    if sigma > 0:
        margin = int(4 * sigma) + 1
        noise = np.pad(noise, margin, mode="wrap")
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.float32)[margin:-margin, margin:-margin]
    return np.ascontiguousarray((noise - noise.mean()) / noise.std(), np.float32)


@lru_cache(maxsize=1)
def sensor_noise() -> NDArray[np.int16]:
    """Sensor noise, mostly in lightness, in sixteenths of a deviation (512, 512, 3)."""
    generator = np.random.Generator(np.random.PCG64(31))
    grey = generator.random((SIDE, SIDE, 1)) + generator.random((SIDE, SIDE, 1)) - 1.0
    colour = generator.random((SIDE, SIDE, 3)) + generator.random((SIDE, SIDE, 3)) - 1.0
    noise = 0.85 * grey + 0.5 * colour
    return np.asarray(np.rint(16 * noise / noise.std()), np.int16)


def texture(height: int, width: int, *, sigma: float, x: int, y: int) -> NDArray[np.float32]:
    """A piece of soft noise at any offset (H, W)."""
    tile = soft_noise(sigma)
    rows, columns = (np.arange(height) + y) % SIDE, (np.arange(width) + x) % SIDE
    return tile[rows][:, columns]
