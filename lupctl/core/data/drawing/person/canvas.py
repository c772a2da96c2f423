"""Two layers to draw a person on: what each pixel is made of, and how light falls on it."""

import math
from collections.abc import Sequence
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.person.pose import Pixel

NEUTRAL = 128
FINE = 16  # cv2 takes coordinates in sixteenths of a pixel (4 fractional bits)
SHIFT = 4


class Material(IntEnum):
    """What a pixel shows; the numbers index a table of colours."""

    NONE = 0
    SKIN = 1
    HAIR = 2
    UPPER = 3
    UPPER_SECOND = 4
    UPPER_MIXED = 5
    INNER = 6
    LOWER = 7
    LOWER_SECOND = 8
    LOWER_MIXED = 9
    SHOE = 10
    SOLE = 11
    BAG = 12
    BAG_DARK = 13
    HEADWEAR = 14
    INK = 15
    LIPS = 16
    LEG = 17  # skin of a bare leg


class Canvas:
    """Draws rounded parts, each shaded as if lit from one side.

    Args:
        height: in pixels.
        width: in pixels.
        light: where light comes from, -1 left to 1 right.
    """

    def __init__(self, height: int, width: int, *, light: float) -> None:
        self.material: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        self.shade: NDArray[np.uint8] = np.full((height, width), NEUTRAL, np.uint8)
        self.light = light

    def tube(
        self, joints: Sequence[Pixel], radii: Sequence[float], material: Material, *, level: int = NEUTRAL
    ) -> None:
        """A bent, tapered tube with round ends.

        Args:
            joints: at least two points.
            radii: in pixels, one per joint.
            material: what it is made of.
            level: its brightness.
        """
        pieces = list(zip(joints, joints[1:], radii, radii[1:], strict=False))
        # Layer by layer over all pieces, so that no edge shows where two of them meet.
        for share, brighter in ((1.0, -34), (0.76, -4), (0.42, 9)):
            for start, end, first, last in pieces:
                aside = self.light * (1 - share) * 0.3 * (first + last)
                outline = _capsule(start, end, first * share, last * share, aside)
                if share == 1.0:
                    cv2.fillConvexPoly(self.material, outline, int(material), cv2.LINE_8, SHIFT)
                cv2.fillConvexPoly(self.shade, outline, level + brighter, cv2.LINE_8, SHIFT)

    def shape(
        self, points: Sequence[Pixel], material: Material, *, level: int = NEUTRAL, is_round: bool = True
    ) -> None:
        """A filled outline; `is_round` shades it like a body, otherwise flat."""
        outline = np.asarray(points, np.float64)
        self._fill(outline, material, level - 30 if is_round else level)
        if is_round:
            middle = outline[:, :1].mean() + self.light * 0.1 * np.ptp(outline[:, 0])
            for share, brighter in ((0.82, -8), (0.6, 4), (0.34, 12)):
                inner = outline.copy()
                inner[:, 0] = middle + (inner[:, 0] - middle) * share
                cv2.fillPoly(self.shade, [_fixed(inner)], level + brighter, cv2.LINE_8, SHIFT)

    def blob(
        self, centre: Pixel, axes: tuple[float, float], material: Material, *, level: int = NEUTRAL, turn: float = 0.0
    ) -> None:
        """An ellipse with half axes in pixels, turned by `turn` degrees, shaded as a ball."""
        for target, value, share in (
            (self.material, int(material), 1.0),
            (self.shade, level - 28, 1.0),
            (self.shade, level - 4, 0.78),
            (self.shade, level + 10, 0.48),
        ):
            x = centre[0] + self.light * axes[0] * (1 - share) * 0.6
            size = (max(1, round(axes[0] * share * FINE)), max(1, round(axes[1] * share * FINE)))
            where = (round(x * FINE), round(centre[1] * FINE))
            cv2.ellipse(target, where, size, turn, 0, 360, value, -1, cv2.LINE_8, SHIFT)

    def stroke(self, points: Sequence[Pixel], thick: float, material: Material, *, level: int = NEUTRAL) -> None:
        """An open line of even thickness in pixels."""
        line = [_fixed(np.asarray(points, np.float64))]
        for target, value in ((self.material, int(material)), (self.shade, level)):
            cv2.polylines(target, line, False, value, max(1, round(thick)), cv2.LINE_8, SHIFT)

    def _fill(self, outline: NDArray[np.float64], material: Material, level: int) -> None:
        polygon = [_fixed(outline)]
        cv2.fillPoly(self.material, polygon, int(material), cv2.LINE_8, SHIFT)
        cv2.fillPoly(self.shade, polygon, level, cv2.LINE_8, SHIFT)


_ARC = [(math.cos(a), math.sin(a)) for a in (math.pi / 2, 0.75 * math.pi, math.pi, 1.25 * math.pi, 1.5 * math.pi)]


def _capsule(start: Pixel, end: Pixel, first: float, last: float, aside: float) -> NDArray[np.int32]:
    """Outline of a tapered tube, moved `aside` pixels to the right; (10, 1, 2) in fixed point."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    long = math.hypot(dx, dy) or 1e-6
    ux, uy = dx / long, dy / long
    points = []
    for (x, y), radius, way in ((start, first, 1.0), (end, last, -1.0)):
        for cos, sin in _ARC:
            along, across = cos * radius * way, sin * radius * way
            points.append((x + aside + ux * along - uy * across, y + uy * along + ux * across))
    return _fixed(np.array(points))


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * FINE).astype(np.int32).reshape(-1, 1, 2)
