"""Objects in the street, behind people and in front of them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import Chance
from lupctl.core.data.drawing.grain import texture

Bgr = tuple[float, float, float]
CAR_COLOURS: tuple[Bgr, ...] = (
    (40, 38, 36),
    (190, 190, 188),
    (128, 126, 124),
    (46, 42, 132),
    (110, 70, 40),
    (224, 224, 222),
)


def draw_street(image: NDArray[np.uint8], chance: Chance, edge: int) -> None:
    """Puts cars, bicycles, trees, poles, bins and signs along the edge of the ground, in place (H, W, 3)."""
    width = image.shape[1]
    for x in range(chance.integer(0, 70), width, chance.integer(75, 150)):
        match chance.pick(("car", "bicycle", "tree", "pole", "bin", "sign", "none"), (16, 18, 12, 10, 9, 9, 26)):
            case "car":
                draw_car(image, (x, edge + 22), chance.between(38, 52), chance.pick(CAR_COLOURS))
            case "bicycle":
                for shift in range(0, chance.pick((20, 60)), 16):
                    _draw_bicycle(image, x + shift, edge + 16, 13)
            case "tree":
                _draw_tree(image, chance, x, edge + 12)
            case "pole":
                cv2.line(image, (x, 0), (x, edge + 14), (92, 92, 90), 4)
            case "bin":
                colour = chance.pick(((70, 96, 50), (60, 58, 56), (120, 84, 44)))
                cv2.rectangle(image, (x, edge - 22), (x + 20, edge + 14), colour, -1)
                cv2.rectangle(image, (x - 1, edge - 26), (x + 21, edge - 20), [0.7 * level for level in colour], -1)
            case "sign":
                colour = chance.pick(((150, 84, 36), (48, 44, 160), (214, 214, 214)))
                cv2.line(image, (x + 12, edge - 40), (x + 12, edge + 12), (110, 110, 110), 3)
                cv2.rectangle(image, (x, edge - 64), (x + 25, edge - 36), colour, -1)
                cv2.rectangle(image, (x + 4, edge - 56), (x + 21, edge - 44), (222, 222, 222), 1)
            case _:
                pass


def draw_car(image: NDArray[np.uint8], at: tuple[float, float], size: float, colour: Bgr) -> None:
    """A car from the side; `at` is the ground under its middle, `size` its height in pixels."""
    x, y = at
    dark = tuple(0.6 * level for level in colour)
    body = (
        (-1.5, -0.15),
        (-1.5, -0.5),
        (-0.95, -0.6),
        (-0.6, -1.0),
        (0.5, -1.0),
        (0.95, -0.6),
        (1.5, -0.5),
        (1.5, -0.15),
    )
    glass = ((-0.8, -0.6), (-0.52, -0.92), (0.42, -0.92), (0.8, -0.6))
    cv2.ellipse(image, (int(x), int(y)), (int(1.5 * size), max(1, int(0.1 * size))), 0, 0, 360, (52, 52, 52), -1)
    _fill(image, [(x + size * a, y + size * b) for a, b in body], colour)
    _fill(image, [(x + size * a, y + size * b) for a, b in (body[0], (-1.5, -0.3), (1.5, -0.3), body[-1])], dark)
    _fill(image, [(x + size * a, y + size * b) for a, b in glass], (70, 62, 54))
    for wheel in (-0.95, 0.95):
        centre = int(x + wheel * size), int(y - 0.18 * size)
        cv2.circle(image, centre, max(1, int(0.22 * size)), (30, 30, 30), -1, cv2.LINE_AA)
        cv2.circle(image, centre, max(1, int(0.11 * size)), (140, 140, 140), -1, cv2.LINE_AA)


def draw_plant(image: NDArray[np.uint8], chance: Chance, at: tuple[float, float], size: float) -> None:
    """A bush in the foreground; `at` is its foot."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(22):
        x, y = at[0] + chance.bell(0, 0.4) * size, at[1] - chance.between(0.05, 0.95) * size
        axes = (max(1, int(0.34 * size * chance.between(0.6, 1))), max(1, int(0.22 * size)))
        cv2.ellipse(mask, (int(x), int(y)), axes, chance.between(0, 180), 0, 360, 255, -1)
    leaves = texture(height, width, sigma=1.5, x=chance.integer(0, 512), y=chance.integer(0, 512))[..., None]
    green = np.clip(np.array((50.0, 92.0, 66.0)) * (1 + 0.3 * leaves), 0, 255).astype(np.uint8)
    cv2.copyTo(green, mask, image)


def draw_railing(image: NDArray[np.uint8], chance: Chance, top: float) -> None:
    """Bars across the lower part of an image from row `top` down."""
    height, width = image.shape[:2]
    colour = chance.pick(((60, 60, 60), (150, 150, 150), (70, 84, 60)))
    thick, step = max(2, height // 64), int(width * chance.between(0.1, 0.18))
    for y in (top, 0.5 * (top + height)):
        cv2.line(image, (0, int(y)), (width, int(y)), colour, thick + 1)
    for x in range(chance.integer(0, step), width, step):
        cv2.line(image, (x, int(top)), (x, height), colour, thick)


def draw_post(image: NDArray[np.uint8], chance: Chance, x: float, wide: float) -> None:
    """A post from the upper edge to the lower, with a lit side."""
    height = image.shape[0]
    grey = chance.between(60, 160)
    cv2.rectangle(image, (int(x), 0), (int(x + wide), height), (grey, grey, grey), -1)
    cv2.rectangle(image, (int(x), 0), (int(x + 0.3 * wide), height), (1.2 * grey, 1.2 * grey, 1.2 * grey), -1)


def _draw_bicycle(image: NDArray[np.uint8], x: int, y: int, size: int) -> None:
    for wheel in (-size, size):
        cv2.circle(image, (x + wheel, y - size), size - 2, (44, 44, 46), 2, cv2.LINE_AA)
    frame = (
        (-size, -size),
        (-size // 3, -2 * size),
        (size // 2, -2 * size),
        (size, -size),
        (0, -size),
        (-size // 3, -2 * size),
    )
    points = np.array([(x + a, y + b) for a, b in frame], np.int32)
    cv2.polylines(image, [points], False, (70, 66, 120), 2, cv2.LINE_AA)
    cv2.line(image, (x + size // 2, y - 2 * size), (x + size // 2 - 4, y - 2 * size - 6), (50, 50, 50), 2)


def _draw_tree(image: NDArray[np.uint8], chance: Chance, x: int, y: int) -> None:
    cv2.rectangle(image, (x - 5, 0), (x + 5, y), (52, 68, 84), -1)
    cv2.rectangle(image, (x - 5, 0), (x - 2, y), (72, 88, 104), -1)
    if chance.bernoulli(0.6):
        draw_plant(image[: max(1, y - 60)], chance, (x, y - 70), 70)


def _fill(image: NDArray[np.uint8], points: list[tuple[float, float]], colour: Bgr | tuple[float, ...]) -> None:
    cv2.fillPoly(image, [np.rint(points).astype(np.int32)], colour, cv2.LINE_AA)
