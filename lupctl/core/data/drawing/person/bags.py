"""Bags: how much of one a camera sees depends on which way the person faces."""

import math

from lupctl.core.data.drawing.person.canvas import NEUTRAL, Canvas, Material
from lupctl.core.data.drawing.person.pose import Pixel, Point, Skeleton, View
from lupctl.core.data.drawing.person.traits import Traits


def draw_bag_behind(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    """The part that the body covers: a backpack on someone who faces the camera, a bag at the far hip or hand."""
    if traits.bag == "backpack" and math.cos(view.angle) > 0:
        _draw_pack(canvas, bones, view)
    elif traits.bag == "shoulder" and view.nearness(_hip_bag(traits, bones)) < 0:
        _draw_hip_bag(canvas, traits, bones, view)
    elif traits.bag == "hand" and view.nearness(bones.wrist[_hand(traits)]) < -0.03:
        _draw_hand_bag(canvas, traits, bones, view)


def draw_bag_in_front(canvas: Canvas, traits: Traits, bones: Skeleton, view: View, *, is_below_hair: bool) -> None:
    """The part over the body: straps and packs under the hair, bags at hip and hand over the arm."""
    if is_below_hair:
        if traits.bag == "backpack":
            _draw_pack_straps(canvas, bones, view)
            if math.cos(view.angle) <= 0:
                _draw_pack(canvas, bones, view)
        elif traits.bag == "shoulder":
            _draw_long_strap(canvas, traits, bones, view)
    elif traits.bag == "shoulder" and view.nearness(_hip_bag(traits, bones)) >= 0:
        _draw_hip_bag(canvas, traits, bones, view)
    elif traits.bag == "hand" and view.nearness(bones.wrist[_hand(traits)]) >= -0.03:
        _draw_hand_bag(canvas, traits, bones, view)


def _hand(traits: Traits) -> int:
    return 0 if traits.bag_side < 0 else 1


def _box(view: View, centre: Point, halves: tuple[float, float, float]) -> list[Pixel]:
    """Outline of a soft upright box with half sizes (left, up, forward)."""
    x, y = view.project(centre)
    wide, tall = view.half_width(halves[0], halves[2]), halves[1] * view.tall
    shape = (
        (-1, 0.8),
        (-0.9, 1),
        (0.9, 1),
        (1, 0.8),
        (1, -0.4),
        (0.85, -0.85),
        (0.4, -1),
        (-0.4, -1),
        (-0.85, -0.85),
        (-1, -0.4),
    )
    return [(x + wide * a, y + tall * b) for a, b in shape]


def _draw_pack(canvas: Canvas, bones: Skeleton, view: View) -> None:
    centre = (0.0, bones.neck[1] - 0.145, bones.neck[2] - 0.115)
    canvas.shape(_box(view, centre, (0.083, 0.125, 0.055)), Material.BAG)
    if math.cos(view.angle) < 0.1:
        low = (0.0, centre[1] - 0.06, centre[2] - 0.05 * abs(math.cos(view.angle)))
        canvas.shape(_box(view, low, (0.055, 0.04, 0.045)), Material.BAG_DARK)
        x, y = view.project((0.0, centre[1] + 0.06, centre[2]))
        half = view.half_width(0.06, 0.04)
        canvas.stroke([(x - half, y), (x + half, y)], 0.008 * view.tall, Material.BAG_DARK, level=NEUTRAL - 30)


def _draw_pack_straps(canvas: Canvas, bones: Skeleton, view: View) -> None:
    if math.cos(view.angle) < -0.35:
        return
    for side, shoulder in zip((-1, 1), bones.shoulder, strict=True):
        if abs(math.sin(view.angle)) > 0.5 and view.nearness((float(side), 0.0, 0.0)) < 0:
            continue
        x = 0.66 * shoulder[0]
        line = [(x, shoulder[1] + 0.03, -0.02), (x, shoulder[1] - 0.02, 0.05), (x, shoulder[1] - 0.11, 0.07)]
        line.append((1.3 * x, shoulder[1] - 0.17, 0.02))
        canvas.stroke([view.project(point) for point in line], 0.023 * view.tall, Material.BAG, level=NEUTRAL - 12)


def _hip_bag(traits: Traits, bones: Skeleton) -> Point:
    return traits.bag_side * 0.125, bones.hip[0][1] - 0.01, -0.02


def _draw_hip_bag(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    centre = _hip_bag(traits, bones)
    canvas.shape(_box(view, centre, (0.028, 0.062, 0.078)), Material.BAG)
    x, y = view.project((centre[0], centre[1] + 0.02, centre[2]))
    half = view.half_width(0.02, 0.07)
    canvas.stroke([(x - half, y), (x + half, y)], 0.008 * view.tall, Material.BAG_DARK, level=NEUTRAL - 30)


def _draw_long_strap(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    """A strap over the other shoulder, across chest and back."""
    side = traits.bag_side
    forward = 0.07 if math.cos(view.angle) > 0 else -0.07
    top: Point = (-0.06 * side, bones.neck[1] - 0.005, 0.0)
    middle: Point = (0.01 * side, bones.neck[1] - 0.13, forward)
    low: Point = (0.1 * side, bones.hip[0][1] + 0.05, 0.3 * forward)
    canvas.stroke([view.project(point) for point in (top, middle, low)], 0.016 * view.tall, Material.BAG_DARK)


def _draw_hand_bag(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    x0, up, forward = bones.wrist[_hand(traits)]
    up -= 0.045
    for shift in (-0.03, 0.03):
        handle = [view.project((x0, up, forward)), view.project((x0, up - 0.05, forward + shift))]
        canvas.stroke(handle, 0.009 * view.tall, Material.BAG_DARK)
    canvas.shape(_box(view, (x0, up - 0.11, forward), (0.032, 0.062, 0.068)), Material.BAG)
