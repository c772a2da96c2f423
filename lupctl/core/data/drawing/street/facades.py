"""The background behind people: walls, shop windows, hedges, shutters."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import Chance
from lupctl.core.data.drawing.grain import texture
from lupctl.core.data.drawing.palette import Colour

KINDS = ("brick", "plaster", "shop", "hedge", "shutter", "glass", "panels", "tiles", "dark", "open")
WEIGHTS = (12, 16, 16, 11, 6, 10, 10, 7, 6, 9)
WALLS: tuple[Colour, ...] = (
    (176, 168, 152), (150, 96, 78), (128, 126, 124), (196, 188, 172), (112, 104, 98), (166, 150, 124), (120, 132, 140),
    (148, 124, 104), (92, 94, 98),
)  # fmt: skip


def draw_facades(chance: Chance, height: int, width: int) -> NDArray[np.uint8]:
    """A row of fronts down to where they meet the ground, BGR (H, W, 3)."""
    strip = np.zeros((height, width, 3), np.uint8)
    kinds = [chance.pick(KINDS, WEIGHTS) for _ in range(3)]  # a street repeats itself
    left = 0
    while left < width:
        right = min(width, left + chance.integer(60, 190))
        _draw_front(chance, chance.pick(kinds), strip[:, left:right])
        left = right
    grain = texture(height, width, sigma=2.0, x=chance.integer(0, 512), y=chance.integer(0, 512))
    return np.clip(strip * (1 + 0.045 * grain[..., None]), 0, 255).astype(np.uint8)


def _tone(colour: Colour, share: float) -> tuple[float, float, float]:
    return colour[2] * share, colour[1] * share, colour[0] * share


def _draw_front(chance: Chance, kind: str, part: NDArray[np.uint8]) -> None:
    """Fills one front in place; `part` may be a view."""
    height, width = part.shape[:2]
    wall, level = chance.pick(WALLS), chance.between(0.7, 1.15)
    front = np.empty((height, width, 3), np.uint8)
    front[:] = _tone(wall, level)
    match kind:
        case "brick":
            _draw_bricks(front, chance, 5, 12, 0.78)
        case "tiles":
            step = chance.integer(8, 16)
            _draw_bricks(front, chance, step, step, 1.15)
        case "panels":
            for x in range(chance.integer(5, 30), width, chance.integer(34, 60)):
                cv2.line(front, (x, 0), (x, height), _tone(wall, 0.7 * level), 2)
            cv2.line(front, (0, height // 2), (width, height // 2), _tone(wall, 0.78 * level), 2)
        case "plaster":
            _draw_windows(front, chance, wall, level)
        case "shop":
            _draw_shop(front, chance)
        case "glass":
            _draw_glass(front, chance)
        case "hedge":
            _draw_leaves(front, chance, (70, 96, 52), 0.28)
        case "shutter":
            for y in range(0, height, 5):
                cv2.line(front, (0, y), (width, y), _tone(wall, 0.74 * level), 2)
        case "dark":
            front[:] = _tone((44, 42, 42), chance.between(0.7, 1.4))
        case _:
            _draw_open(front, chance)
    if kind not in ("hedge", "dark", "open"):
        foot = max(3, height // 14)
        front[height - foot :] = (front[height - foot :] * 0.72).astype(np.uint8)
    part[:] = front


def _draw_bricks(front: NDArray[np.uint8], chance: Chance, high: int, wide: int, line: float) -> None:
    height, width = front.shape[:2]
    stones = texture(
        height // high + 1, width // wide + 2, sigma=0.0, x=chance.integer(0, 512), y=chance.integer(0, 512)
    )
    shades = np.repeat(np.repeat(stones, high, 0), wide, 1)[:height, :width]
    lit = front * (1 + 0.07 * shades[..., None])
    lit[::high] *= line
    for index, top in enumerate(range(0, height, high)):
        lit[top : top + high, (wide // 2) * (index % 2) :: wide] *= line
    front[:] = np.clip(lit, 0, 255).astype(np.uint8)


def _draw_windows(front: NDArray[np.uint8], chance: Chance, wall: Colour, level: float) -> None:
    height, width = front.shape[:2]
    step, tall = chance.integer(36, 64), chance.between(0.35, 0.55) * height
    for x in range(chance.integer(4, 24), width - 20, step):
        is_door = chance.bernoulli(0.25)
        top = 0.22 * height
        bottom = height if is_door else top + tall
        inside = chance.pick(((52, 58, 66), (92, 104, 116), (74, 60, 46)))
        box = (x, round(top)), (x + step // 2, round(bottom))
        cv2.rectangle(front, box[0], box[1], _tone(inside, 1.0), -1)
        cv2.rectangle(front, box[0], box[1], _tone(wall, min(1.3, level * 1.2)), 2)


def _draw_shop(front: NDArray[np.uint8], chance: Chance) -> None:
    height, width = front.shape[:2]
    inside = chance.pick(((188, 174, 142), (70, 66, 64), (132, 138, 142), (206, 200, 188)))
    front[:] = _tone(inside, 1.0)
    for _ in range(width // 5):  # goods, posters, mannequins
        x, y = chance.integer(0, width), chance.integer(height // 4, height)
        colour = chance.pick((*WALLS, (170, 50, 52), (50, 84, 140), (216, 180, 70), (230, 228, 222), (40, 40, 44)))
        size = chance.integer(3, 13), chance.integer(4, 22)
        cv2.rectangle(front, (x, y), (x + size[0], y + size[1]), _tone(colour, chance.between(0.7, 1.0)), -1)
    sign = chance.pick(((150, 40, 44), (40, 70, 120), (46, 96, 72), (60, 56, 54), (214, 190, 90)))
    cv2.rectangle(front, (0, 0), (width, height // 5), _tone(sign, 1.0), -1)
    for x in range(8, width - 8, 11):
        cv2.rectangle(front, (x, height // 14), (x + 6, height // 8), (226, 228, 230), -1)
    front[:] = cv2.GaussianBlur(front, (0, 0), 1.2)
    cv2.rectangle(front, (0, 0), (width - 1, height), _tone((60, 60, 62), 1.0), 3)


def _draw_glass(front: NDArray[np.uint8], chance: Chance) -> None:
    height, width = front.shape[:2]
    sky, deep = np.array(_tone((176, 192, 204), 1.0)), np.array(_tone((62, 74, 82), 1.0))
    fall = np.linspace(0.8, 0.1, height)[:, None, None]
    wave = 0.16 * texture(height, width, sigma=12.0, x=chance.integer(0, 512), y=chance.integer(0, 512))[..., None]
    front[:] = np.clip(deep + (sky - deep) * np.clip(fall + wave, 0, 1), 0, 255)
    for x in range(0, width, chance.integer(24, 44)):
        cv2.line(front, (x, 0), (x, height), (84, 82, 80), 2)
    cv2.line(front, (0, height // 2), (width, height // 2), (84, 82, 80), 2)


def _draw_leaves(front: NDArray[np.uint8], chance: Chance, colour: Colour, contrast: float) -> None:
    height, width = front.shape[:2]
    leaves = texture(height, width, sigma=1.5, x=chance.integer(0, 512), y=chance.integer(0, 512))
    clumps = texture(height, width, sigma=12.0, x=chance.integer(0, 512), y=chance.integer(0, 512))
    front[:] = np.clip(np.array(_tone(colour, 1.0)) * (1 + contrast * (leaves + clumps))[..., None], 0, 255)


def _draw_open(front: NDArray[np.uint8], chance: Chance) -> None:
    """A view into the distance: sky, trees, then more ground."""
    height = front.shape[0]
    front[:] = _tone((206, 212, 218), chance.between(0.85, 1.1))
    _draw_leaves(front[height // 5 : height // 2], chance, chance.pick(((84, 104, 70), (112, 112, 96))), 0.2)
    front[height // 2 :] = _tone(chance.pick(((150, 148, 142), (124, 132, 92), (134, 126, 118))), 1.0)
