"""One crop from start to end: scene, person, occluders, camera."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.sources.drawing.chance import PERSON, SHOT, Chance


@dataclass(frozen=True)
class Shot:
    """What one image shows; together with the seed this decides every pixel.

    Args:
        seed: of the whole dataset.
        crowd: which set of people the person belongs to (labelled, unlabelled, distractors ...).
        person: number within that crowd.
        scene: number of the place; a camera of the labelled part is a scene of its own.
        index: counts the images of this person in this scene.
        is_junk: a bad box: background, or a piece of the person.
    """

    seed: int
    crowd: int
    person: int
    scene: int
    index: int
    is_junk: bool = False


def draw_shot(shot: Shot, *, height: int, width: int, effects: bool) -> NDArray[np.uint8]:
    """The crop as BGR pixels (H, W, 3).

    Args:
        shot: what to draw.
        height: of the crop in pixels.
        width: of the crop in pixels.
        effects: with scenes, views, light and camera faults; else one view before plain grey.
    """
    person = Chance(shot.seed, PERSON, shot.crowd, shot.person)
    upper = [person.between(30, 220) for _ in range(3)]
    lower = [person.between(30, 160) for _ in range(3)]
    chance = Chance(shot.seed, SHOT, shot.crowd, shot.person, shot.scene, shot.index)
    image = np.full((height, width, 3), 120, np.uint8)
    x, y = int(chance.bell(width * 0.5, width * 0.05)), int(height * 0.2)
    cv2.rectangle(image, (x - width // 5, y), (x + width // 5, height // 2), upper, -1)
    cv2.rectangle(image, (x - width // 6, height // 2), (x + width // 6, height - 6), lower, -1)
    cv2.circle(image, (x, height // 8), height // 16, (140, 170, 220), -1)
    return image
