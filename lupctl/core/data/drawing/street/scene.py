"""A scene with its camera: what is behind people, how they walk through it, how the picture is taken."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import SCENE, Chance
from lupctl.core.data.drawing.street.facades import draw_facades
from lupctl.core.data.drawing.street.ground import draw_ground
from lupctl.core.data.drawing.street.objects import draw_street

PERSON_PX = 128  # a person's height in the panorama at zoom 1
PANORAMA = (272, 704)
GOLDEN = 0.6180339887


@dataclass(frozen=True)
class Camera:
    """The properties of a camera.

    Args:
        angle: the direction most people walk in, see `Pose`.
        tilt: how far it looks down, radians.
        stretch: ratio of width to height in what it shows.
        gains: of blue, green and red.
        saturation: 1 is unchanged.
        gamma: above 1 darkens the midtones.
        contrast: around middle grey.
        brightness: added last, in grey levels.
        blur: radius (sigma) as a share of the image's height.
        noise: deviation in grey levels.
    """

    angle: float
    tilt: float
    stretch: float
    gains: tuple[float, float, float]
    saturation: float
    gamma: float
    contrast: float
    brightness: float
    blur: float
    noise: float


@dataclass(frozen=True)
class Scene:
    """A scene. `light` is where light comes from (-1 left, 1 right), `sun` how hard the shadows are (0 to 1)."""

    panorama: NDArray[np.uint8]
    edge: int
    light: float
    sun: float
    camera: Camera

    def cut(self, height: int, width: int, *, x: float, foot: float, zoom: float, down: float) -> NDArray[np.uint8]:
        """The background of a crop (H, W, 3).

        Args:
            height: of the crop in pixels.
            width: of the crop in pixels.
            x: where the person stands along the panorama, 0 to 1.
            foot: where on the ground, 0 at the far edge, 1 nearest.
            zoom: of the background relative to the person.
            down: row of the person's feet in the crop.
        """
        scale = zoom * height / PERSON_PX
        row = self.edge + foot * (PANORAMA[0] - self.edge)
        half = 0.5 * width / scale
        column = half + x * max(0.0, PANORAMA[1] - 2 * half)
        matrix = np.array([[scale, 0, 0.5 * width - scale * column], [0, scale, down - scale * row]])
        cut = cv2.warpAffine(
            self.panorama, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(cut, np.uint8)


@lru_cache(maxsize=64)
def draw_scene(seed: int, number: int) -> Scene:
    """The scene with a given number; about 0.6 MB, cached for the next crops from it."""
    chance = Chance(seed, SCENE, number)
    camera = _pick_camera(chance, Chance(seed, SCENE).unit() + number * GOLDEN)
    height, width = PANORAMA
    edge = round(150 - 150 * camera.tilt + chance.between(-15, 15))
    panorama = np.vstack([draw_facades(chance, edge, width), draw_ground(chance, height - edge, width)])
    draw_street(panorama, chance, edge)
    # Streets are greyer than paint: a third of the colour is removed, so that people stand out by what they wear.
    grey = cv2.cvtColor(cv2.cvtColor(panorama, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    panorama = np.asarray(cv2.addWeighted(panorama, 0.7, grey, 0.3, 0), np.uint8)
    panorama = np.asarray(cv2.GaussianBlur(panorama, (0, 0), chance.between(0.6, 1.3)), np.uint8)
    sun = chance.between(0.5, 1.0) if chance.bernoulli(0.4) else chance.between(0.1, 0.4)
    panorama.flags.writeable = False
    return Scene(panorama, edge, chance.sign() * chance.between(0.2, 0.9), sun, camera)


def _pick_camera(chance: Chance, turn: float) -> Camera:
    """A camera with realistic faults; the views of successive cameras are well apart."""
    warm = chance.bell(0.0, 0.022)  # towards lamps or towards the sky
    tint = chance.bell(0.0, 0.007)
    return Camera(
        angle=2 * math.pi * (turn % 1.0),
        tilt=max(0.03, chance.bell(0.2, 0.1)),
        stretch=chance.bell(1.32, 0.06),
        gains=(1 - warm, 1 + tint, 1 + warm),
        saturation=chance.bell(0.95, 0.06),
        gamma=chance.bell(1.0, 0.05),
        contrast=chance.bell(0.95, 0.035),
        brightness=chance.bell(0.0, 3.0),
        blur=chance.between(0.003, 0.0085),
        noise=chance.between(0.8, 3.8),
    )
