"""One crop from start to end: scene, person, occluders, camera."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.sources.drawing.canvas import Canvas
from lupctl.core.sources.drawing.chance import SHOT, Chance
from lupctl.core.sources.drawing.fabric import paint
from lupctl.core.sources.drawing.figure import draw_figure
from lupctl.core.sources.drawing.pose import Pose, View
from lupctl.core.sources.drawing.traits import draw_traits

OVER = 2  # persons are drawn this much larger, then averaged down


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
    traits = draw_traits(shot.seed, shot.crowd, shot.person)
    chance = Chance(shot.seed, SHOT, shot.crowd, shot.person, shot.scene, shot.index)
    h, w = OVER * height, OVER * width
    angle = chance.between(0, 2 * math.pi)
    pose = Pose(angle, chance.between(0, 2 * math.pi), chance.between(0.1, 0.5), 0.05, (0.3, 0.3), 0.0)
    view = View(w / 2, h * 0.97, h * 0.92, 1.15, 0.15, angle)
    canvas = Canvas(h, w, light=-0.5)
    draw_figure(canvas, traits, pose, view)
    person = paint(canvas, traits, view, tile=chance.whole(0, 1000))
    image = np.full((h, w, 3), 150, np.uint8)
    cv2.copyTo(person, cv2.compare(canvas.material, 0, cv2.CMP_GT), image)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
