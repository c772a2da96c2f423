"""Head, face, hair and what is worn on it."""

import math

from lupctl.core.data.drawing.person.canvas import NEUTRAL, Canvas, Material
from lupctl.core.data.drawing.person.pose import Pixel, Skeleton, View
from lupctl.core.data.drawing.person.traits import Head

HALF_TALL, HALF_WIDE, HALF_DEEP = 0.066, 0.049, 0.058


def draw_head(canvas: Canvas, head: Head, size: float, bones: Skeleton, view: View, turn: float) -> None:
    """Skull, hair, face, headwear, from back to front.

    Args:
        canvas: to draw on.
        head: the traits.
        size: of the head, 1 is the average.
        bones: where the head is.
        view: of the camera.
        turn: of the head against the body, radians.
    """
    angle = view.angle + turn
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = view.project(bones.head)
    unit = size * view.tall
    wide = unit * (0.4 + 0.6 * view.stretch) * math.hypot(HALF_WIDE * cos, HALF_DEEP * sin)
    tall = unit * HALF_TALL
    covers = head.style != "bald" or head.headwear == "scarf"
    scalp = Material.HEADWEAR if head.headwear == "scarf" else Material.HAIR if covers else Material.SKIN
    grow = {"bald": 1.0, "short": 1.05, "long": 1.1, "bob": 1.14, "ponytail": 1.05, "bun": 1.05}[head.style]
    if head.style == "bob" or head.headwear == "scarf":
        canvas.blob((x, y + 0.22 * tall), (wide * 1.22, tall * 0.95), scalp)
    if head.style == "bun" and head.headwear == "none":
        canvas.blob((x - 0.75 * wide * sin, y - 0.85 * tall), (0.5 * wide, 0.36 * tall), Material.HAIR)
    if scalp == Material.HAIR:  # below the hair line at the back there is skin
        canvas.blob((x, y + 0.12 * tall), (wide * 0.92, tall * 0.86), Material.SKIN, level=NEUTRAL - 8)
    lift = 0.1 * tall if head.style == "short" else 0.02 * tall
    canvas.blob(
        (x - 0.06 * wide * sin, y - lift), (wide * grow, tall * (0.97 if head.style == "short" else 1.03)), scalp
    )
    if cos > -0.45:
        _draw_face(canvas, head, (x, y), (wide, tall), cos, sin)
    else:
        for side in (-1, 1):
            canvas.blob((x + side * 0.98 * wide * grow, y + 0.12 * tall), (0.1 * wide, 0.2 * tall), Material.SKIN)
    _draw_headwear(canvas, head, (x, y), (wide, tall), cos, sin)


def _draw_face(canvas: Canvas, head: Head, centre: Pixel, half: tuple[float, float], cos: float, sin: float) -> None:
    x, y = centre
    wide, tall = half
    seen = min(1.0, max(0.0, 0.55 + 0.6 * cos))  # how much of the face the camera sees
    face_x, face_wide = x + 0.5 * wide * sin * (1.15 - 0.4 * seen), wide * (0.42 + 0.42 * seen)
    low = 0.2 if head.style != "bald" else 0.1
    canvas.blob((face_x, y + low * tall), (face_wide, tall * (0.82 if head.style != "bald" else 0.92)), Material.SKIN)
    if abs(sin) > 0.25:  # the nose breaks the outline
        canvas.blob(
            (face_x + 0.94 * face_wide * (1 if sin > 0 else -1), y + 0.25 * tall),
            (0.14 * wide, 0.12 * tall),
            Material.SKIN,
        )
    if head.style in ("long", "bob", "ponytail") and head.headwear == "none":  # a fringe
        canvas.blob((face_x - 0.15 * wide, y - 0.5 * tall), (face_wide * 0.95, tall * 0.22), Material.HAIR, turn=-12.0)
    if cos < -0.1:
        return
    eye_y, gap = y + 0.08 * tall, 0.42 * wide * max(0.25, cos)
    middle = x + 0.62 * wide * sin
    for side in (-1, 1):
        if abs(sin) > 0.75 and side * sin > 0:
            continue
        spot = (middle + side * gap, eye_y)
        if head.has_glasses:
            canvas.blob(spot, (0.3 * wide, 0.17 * tall), Material.INK, level=NEUTRAL + 20)
        else:
            canvas.blob(spot, (0.14 * wide, 0.085 * tall), Material.INK)
            canvas.blob((spot[0], spot[1] - 0.17 * tall), (0.22 * wide, 0.05 * tall), Material.HAIR)
    if head.has_beard:
        canvas.blob((middle, y + 0.8 * tall), (0.6 * wide * max(0.5, cos), 0.26 * tall), Material.HAIR)
    canvas.blob(
        (middle + 0.06 * wide * sin, y + 0.36 * tall), (0.09 * wide, 0.08 * tall), Material.SKIN, level=NEUTRAL - 18
    )
    canvas.blob((middle, y + 0.62 * tall), (0.26 * wide * max(0.4, cos), 0.07 * tall), Material.LIPS)


def _draw_headwear(
    canvas: Canvas, head: Head, centre: Pixel, half: tuple[float, float], cos: float, sin: float
) -> None:
    x, y = centre
    wide, tall = half
    if head.headwear not in ("cap", "beanie"):
        return
    brim = y - 0.22 * tall
    dome = []
    for step in range(9):
        a = math.pi * step / 8
        dome.append((x + 1.12 * wide * math.cos(a), brim - 0.92 * tall * math.sin(a)))
    canvas.shape(dome, Material.HEADWEAR)
    if head.headwear == "beanie":
        canvas.stroke([dome[-1], dome[0]], 0.28 * tall, Material.HEADWEAR, level=NEUTRAL - 24)
    elif cos > -0.5:
        tip = (x + 1.15 * wide * sin, brim + 0.1 * tall)
        canvas.blob(
            tip,
            (wide * (0.95 - 0.25 * abs(sin)), tall * (0.1 + 0.08 * max(0.0, cos))),
            Material.HEADWEAR,
            level=NEUTRAL - 26,
        )


def draw_back_hair(canvas: Canvas, head: Head, bones: Skeleton, view: View, turn: float) -> None:
    """Hair that hangs behind a person who faces the camera; drawn before the body."""
    _hang(canvas, head, bones, view, turn)


def draw_falling_hair(canvas: Canvas, head: Head, bones: Skeleton, view: View, turn: float) -> None:
    """The same hair over the back of a person who turned away; drawn after the body."""
    _hang(canvas, head, bones, view, turn)


def _hang(canvas: Canvas, head: Head, bones: Skeleton, view: View, turn: float) -> None:
    x, y = view.project(bones.head)
    sin, away = math.sin(view.angle + turn), max(0.0, -math.cos(view.angle + turn))
    unit = view.tall * HALF_TALL
    fall = y + unit * (1.0 + 1.6 * head.length)
    if head.headwear == "scarf":
        canvas.tube(
            [(x, y + 0.6 * unit), (x - 0.2 * unit * sin, y + 1.9 * unit)], (0.9 * unit, 1.25 * unit), Material.HEADWEAR
        )
    elif head.style == "long":
        start = (x - 0.25 * unit * sin, y - 0.05 * unit)
        canvas.tube(
            [start, (x - 0.75 * unit * sin, fall)], (0.86 * unit, 0.72 * unit), Material.HAIR, level=NEUTRAL - 6
        )
    elif head.style == "ponytail" and (away > 0.1 or abs(sin) > 0.3):
        start = (x - 0.95 * unit * sin, y - 0.35 * unit)
        canvas.tube([start, (x - 1.25 * unit * sin, fall)], (0.3 * unit, 0.22 * unit), Material.HAIR, level=NEUTRAL - 4)
