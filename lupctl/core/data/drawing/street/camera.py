"""Turns a clean picture into what a camera would have stored."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import Chance
from lupctl.core.data.drawing.grain import SIDE, sensor_noise
from lupctl.core.data.drawing.street.scene import Camera

GREY_WEIGHTS = np.array([0.114, 0.587, 0.299])  # of blue, green, red (ITU-R BT.601)


def take_picture(image: NDArray[np.uint8], camera: Camera, chance: Chance, *, exposure: float) -> NDArray[np.uint8]:
    """Applies blur, motion, colour, tone and noise to BGR pixels (H, W, 3); returns a new image.

    Args:
        image: clean pixels.
        camera: its faults.
        chance: of this shot.
        exposure: gain of this track, 1 is the camera's own.
    """
    height, width = image.shape[:2]
    sigma = camera.blur * height * chance.between(0.8, 1.3)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.3, sigma)))
    if chance.bernoulli(0.15):
        image = _smear(image, round(height * chance.between(0.02, 0.045)))
    image = np.asarray(cv2.transform(image, _colour_matrix(camera, exposure)))
    image = np.asarray(cv2.LUT(image, _tone_table(camera)))
    top, left = chance.integer(0, SIDE - min(height, SIDE)), chance.integer(0, SIDE - min(width, SIDE))
    grain = sensor_noise()[top : top + height, left : left + width]
    if grain.shape[:2] != (height, width):  # larger than the stored noise
        below, right = height - grain.shape[0], width - grain.shape[1]
        grain = np.asarray(cv2.copyMakeBorder(grain, 0, below, 0, right, cv2.BORDER_REFLECT), np.int16)
    noisy = image.astype(np.int16) + ((grain * round(camera.noise * 16)) >> 8)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _smear(image: NDArray[np.uint8], long: int) -> NDArray[np.uint8]:
    """Motion along the horizontal over `long` pixels."""
    return np.asarray(cv2.blur(image, (max(2, long), 1)))


def _colour_matrix(camera: Camera, exposure: float) -> NDArray[np.float64]:
    grey = np.tile(GREY_WEIGHTS, (3, 1))
    matrix = camera.saturation * np.eye(3) + (1 - camera.saturation) * grey
    return exposure * np.array(camera.gains)[:, None] * matrix


def _tone_table(camera: Camera) -> NDArray[np.uint8]:
    level = np.arange(256) / 255
    curve = 255 * ((level**camera.gamma - 0.5) * camera.contrast + 0.5) + camera.brightness
    return np.clip(np.rint(curve), 0, 255).astype(np.uint8)
