"""Draws one crop from start to end: scene, person, obstacles, camera."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import SHOT, TRACK, Chance
from lupctl.core.data.drawing.person.canvas import Canvas, Material
from lupctl.core.data.drawing.person.fabric import paint
from lupctl.core.data.drawing.person.figure import draw_figure
from lupctl.core.data.drawing.person.parts import parts_of
from lupctl.core.data.drawing.person.pose import Pose, View
from lupctl.core.data.drawing.person.traits import Traits, draw_traits
from lupctl.core.data.drawing.street.camera import take_picture
from lupctl.core.data.drawing.street.objects import CAR_COLOURS, draw_car, draw_plant, draw_post, draw_railing
from lupctl.core.data.drawing.street.scene import Scene, draw_scene

OVER = 2  # everything is drawn this many times larger, then averaged down
PASSERS = 99  # the crowd of people who only cross the picture
PLAIN_GREY = 150


@dataclass(frozen=True)
class Shot:
    """What one image shows; together with the seed this decides every pixel.

    Args:
        seed: of the whole dataset.
        crowd: which set of people the person belongs to (labelled, unlabelled, distractors ...).
        person: number within that crowd.
        scene: number of the scene; each camera of the labelled part is its own scene.
        index: counts the images of this person in this scene.
        is_junk: a bad box: background, or a piece of the person.
    """

    seed: int
    crowd: int
    person: int
    scene: int
    index: int
    is_junk: bool = False


@dataclass(frozen=True)
class _Track:
    """A person's path through a scene."""

    angle: float
    stride: float
    lean: float
    bend: tuple[float, float]
    phase: float
    x: float
    foot: float
    zoom: float
    step: float
    exposure: float


def draw_shot(shot: Shot, *, height: int, width: int, effects: bool) -> NDArray[np.uint8]:
    """The crop as BGR pixels (H, W, 3).

    Args:
        shot: what to draw.
        height: of the crop in pixels.
        width: of the crop in pixels.
        effects: with scenes, views, light and camera faults; otherwise one view against plain grey.
    """
    return _draw(shot, height, width, effects=effects)[0]


def draw_parts(shot: Shot, *, height: int, width: int, effects: bool) -> NDArray[np.uint8]:
    """The body part that each pixel of `draw_shot` shows, (H, W), numbered as in `Part`; other persons have none."""
    return parts_of(_draw(shot, height, width, effects=effects)[1])


def _draw(shot: Shot, height: int, width: int, *, effects: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The crop, and what its person shows at each pixel: a `Material`, none where something else is seen."""
    size = OVER * height, OVER * width
    traits = draw_traits(shot.seed, shot.crowd, shot.person)
    chance = Chance(shot.seed, SHOT, shot.crowd, shot.person, shot.scene, shot.index)
    if not effects:
        return _draw_plain(traits, chance, size)
    scene = draw_scene(shot.seed, shot.scene)
    track = _pick_track(Chance(shot.seed, TRACK, shot.crowd, shot.person, shot.scene), scene)
    pose = _pick_pose(track, chance, shot.index)
    view = _pick_view(scene, pose, chance, size, is_junk=shot.is_junk)
    x = min(1.0, max(0.0, track.x + track.step * shot.index + chance.bell(0.0, 0.01)))
    image = scene.cut(*size, x=x, foot=track.foot, zoom=track.zoom * view.tall / size[0], down=view.y)
    material = np.zeros(size, np.uint8)
    if chance.bernoulli(0.1):
        _draw_passer(image, chance, scene, shot.seed, view, is_nearer=False)
    if not (shot.is_junk and chance.bernoulli(0.4)):
        _draw_shadow(image, view, scene)
        material = _put_person(image, traits, pose, view, scene.light, tile=chance.integer(0, 1000))
    if chance.bernoulli(0.16):
        before = image.copy()
        _draw_obstacle(image, chance, scene, shot.seed, view)
        material[(image != before).any(axis=2)] = Material.NONE
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return take_picture(small, scene.camera, chance, exposure=track.exposure), material[::OVER, ::OVER]


def _draw_plain(traits: Traits, chance: Chance, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pose = Pose(0.5, chance.between(0, 2 * math.pi), 0.25, 0.03, (0.25, 0.25), 0.0)
    image = np.full((*size, 3), PLAIN_GREY, np.uint8)
    view = View(0.5 * size[1], 0.965 * size[0], 0.92 * size[0], 1.15, 0.1, pose.angle)
    material = _put_person(image, traits, pose, view, -0.5, tile=0)
    small = cv2.resize(image, (size[1] // OVER, size[0] // OVER), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), material[::OVER, ::OVER]


def _pick_track(chance: Chance, scene: Scene) -> _Track:
    goes_back = chance.bernoulli(0.3)
    bends = [chance.between(1.2, 1.9) if chance.bernoulli(0.14) else chance.between(0.1, 0.5) for _ in range(2)]
    return _Track(
        angle=scene.camera.angle + (math.pi if goes_back else 0.0) + chance.bell(0.0, 0.4),
        stride=0.06 if chance.bernoulli(0.12) else max(0.15, chance.bell(0.36, 0.09)),
        lean=chance.bell(0.04, 0.04),
        bend=(bends[0], bends[1]),
        phase=chance.between(0, 2 * math.pi),
        x=chance.unit(),
        foot=chance.between(0.12, 0.85),
        zoom=chance.between(0.8, 1.35),
        step=chance.sign() * chance.between(0.02, 0.12),
        exposure=chance.bell(1.0, 0.05),
    )


def _pick_pose(track: _Track, chance: Chance, index: int) -> Pose:
    return Pose(
        angle=track.angle + chance.bell(0.0, 0.2),
        phase=track.phase + 1.9 * index + chance.bell(0.0, 0.4),
        stride=track.stride * chance.between(0.85, 1.15),
        lean=track.lean,
        bend=track.bend,
        turn=chance.bell(0.0, 0.2),
    )


def _pick_view(scene: Scene, pose: Pose, chance: Chance, size: tuple[int, int], *, is_junk: bool) -> View:
    """Where the detector put its box: mostly right, sometimes cutting off feet or head, far off for junk."""
    height, width = size
    tall = min(1.02, max(0.82, chance.bell(0.935, 0.035)))
    foot = 0.5 + 0.5 * tall + chance.bell(0.0, 0.014)
    x = 0.5 + chance.bell(0.0, 0.04)
    if is_junk:
        tall = chance.between(1.5, 2.6) if chance.bernoulli(0.6) else chance.between(0.35, 0.6)
        foot, x = chance.between(0.7, 0.7 + tall), 0.5 + chance.sign() * chance.between(0.2, 0.5)
    elif chance.bernoulli(0.09):
        tall = chance.between(1.1, 1.4)
        foot = 0.04 + tall if chance.bernoulli(0.75) else 0.97
    camera = scene.camera
    stretch = camera.stretch * chance.bell(1.0, 0.04)
    return View(x * width, foot * height, tall * height, stretch, camera.tilt, pose.angle)


def _put_person(
    image: NDArray[np.uint8], traits: Traits, pose: Pose, view: View, light: float, *, tile: int
) -> NDArray[np.uint8]:
    """Draws somebody into an image; gives what each pixel of it shows, a `Material`."""
    height, width = image.shape[:2]
    canvas = Canvas(height, width, light=light)
    draw_figure(canvas, traits, pose, view)
    cv2.copyTo(paint(canvas, traits, view, tile=tile), canvas.material, image)
    return canvas.material


def _draw_shadow(image: NDArray[np.uint8], view: View, scene: Scene) -> None:
    """Darkens the ground at the feet, and away from the light."""
    top = max(0, int(view.y - 0.08 * view.tall))
    part = image[top:]
    if part.shape[0] < 2:
        return
    shade = np.full(part.shape[:2], 255, np.uint8)
    dark = int(255 * (1 - 0.25 - 0.35 * scene.sun))
    centre = int(view.x - 0.16 * scene.light * view.tall), int(view.y - 0.005 * view.tall) - top
    axes = int((0.12 + 0.16 * abs(scene.light)) * view.tall), int(0.03 * view.tall)
    cv2.ellipse(shade, centre, axes, 0, 0, 360, dark, -1)
    shade = np.asarray(cv2.blur(shade, (15, 9)))
    part[:] = cv2.multiply(part, cv2.merge((shade, shade, shade)), scale=1 / 255)


def _draw_passer(
    image: NDArray[np.uint8], chance: Chance, scene: Scene, seed: int, view: View, *, is_nearer: bool
) -> None:
    """Draws someone else, partly in the picture."""
    height, width = image.shape[:2]
    traits = draw_traits(seed, PASSERS, chance.integer(0, 500))
    angle = chance.between(0, 2 * math.pi)
    pose = Pose(angle, chance.between(0, 6), 0.35, 0.04, (0.3, 0.3), 0.0)
    tall = view.tall * (chance.between(1.0, 1.15) if is_nearer else chance.between(0.6, 0.95))
    aside = chance.sign() * chance.between(0.3, 0.55) * width
    lower = 0.05 if is_nearer else -0.08
    other = replace(view, x=view.x + aside, y=view.y + lower * height, tall=tall, angle=angle)
    _put_person(image, traits, pose, other, scene.light, tile=chance.integer(0, 1000))


def _draw_obstacle(image: NDArray[np.uint8], chance: Chance, scene: Scene, seed: int, view: View) -> None:
    height, width = image.shape[:2]
    match chance.pick(("railing", "post", "plant", "car", "person"), (18, 16, 20, 18, 28)):
        case "railing":
            draw_railing(image, chance, chance.between(0.55, 0.75) * height)
        case "post":
            draw_post(image, chance, chance.between(0.05, 0.85) * width, chance.between(0.06, 0.14) * width)
        case "plant":
            draw_plant(image, chance, (chance.between(0, 1) * width, height), chance.between(0.22, 0.38) * height)
        case "car":
            at = (chance.between(-0.3, 1.3) * width, chance.between(1.0, 1.1) * height)
            draw_car(image, at, chance.between(0.4, 0.5) * height, chance.pick(CAR_COLOURS))
        case _:
            _draw_passer(image, chance, scene, seed, view, is_nearer=True)
