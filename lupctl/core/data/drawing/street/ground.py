"""The ground that people walk on, in perspective."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import Chance
from lupctl.core.data.drawing.grain import soft_noise
from lupctl.core.data.drawing.palette import Colour

TILE = 512  # pixels of a ground texture from above; it repeats
KINDS = ("slabs", "bricks", "asphalt", "zebra", "grass", "checker", "concrete", "cobbles", "floor")
WEIGHTS = (20, 14, 14, 8, 9, 7, 12, 6, 10)


def draw_ground(chance: Chance, height: int, width: int) -> NDArray[np.uint8]:
    """A strip of ground from its far edge (top) to the camera (bottom), BGR (H, W, 3)."""
    kind = chance.pick(KINDS, WEIGHTS)
    tile = _draw_tile(chance, kind)
    rows = np.arange(height, dtype=np.float32)[:, None]
    # Seen from a camera above: depth falls with the distance below the horizon, which is above the strip's edge.
    above = chance.between(0.35, 1.1) * height
    depth = (height + above) / (rows + above)
    columns = np.arange(width, dtype=np.float32)[None, :] - chance.between(0.2, 0.8) * width
    scale = chance.between(0.8, 1.4)
    turn = chance.between(-0.5, 0.5)
    across, along = scale * columns * depth, scale * 2.2 * height * depth + 0 * columns
    map_x = np.asarray(across * np.cos(turn) - along * np.sin(turn), np.float32) % TILE
    map_y = np.asarray(across * np.sin(turn) + along * np.cos(turn), np.float32) % TILE
    ground = cv2.remap(tile, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    # Far texture is finer than a pixel and averages out; near the edge the ground is in the shade of the walls.
    blurred = cv2.blur(ground, (9, 5))
    far = np.clip(1.2 * (depth - 1) / max(0.2, float(depth.max()) - 1), 0, 1)[..., None]
    shade = 1 - 0.25 * np.exp(-rows / (0.12 * height))[..., None]
    return np.asarray(np.clip((ground * (1 - far) + blurred * far) * shade, 0, 255), np.uint8)


def _draw_tile(chance: Chance, kind: str) -> NDArray[np.uint8]:
    base = _base(chance, kind)
    tile = np.empty((TILE, TILE, 3), np.float32)
    tile[:] = base[::-1]
    line = 0.72 if chance.bernoulli(0.7) else 1.18
    match kind:
        case "slabs":
            step = chance.pick((32, 64, 128))
            _draw_courses(tile, step, step, line, shift=step // 2 if chance.bernoulli(0.5) else 0)
        case "bricks":
            _draw_courses(tile, 16, 32, line, shift=16)
        case "cobbles":
            _draw_courses(tile, 16, 16, 0.62, shift=8)
            tile *= (1 + 0.09 * soft_noise(4.0))[..., None]
        case "checker":
            step = chance.pick((32, 64))
            cells = (np.arange(TILE) // step)[:, None] + (np.arange(TILE) // step)[None, :]
            tile *= np.where(cells % 2 == 0, 1.0, chance.between(0.62, 0.85))[..., None].astype(np.float32)
        case "zebra":
            stripes = (np.arange(TILE) % 128) < 60
            tile[:, stripes] = 0.35 * tile[:, stripes] + 0.65 * 205
        case "asphalt" if chance.bernoulli(0.6):
            tile[:, 40:58] = 0.3 * tile[:, 40:58] + 0.7 * 200
        case _:
            pass
    grain = {"grass": 0.16, "asphalt": 0.07, "zebra": 0.06, "floor": 0.015}.get(kind, 0.05)
    tile *= (1 + grain * soft_noise(1.5) + 0.6 * grain * soft_noise(12.0))[..., None]
    return np.clip(tile, 0, 255).astype(np.uint8)


def _base(chance: Chance, kind: str) -> Colour:
    level = chance.between(0.75, 1.15)
    red, green, blue = {
        "slabs": chance.pick(((150, 146, 140), (168, 152, 134), (128, 128, 130))),
        "bricks": chance.pick(((150, 112, 96), (140, 134, 128), (160, 140, 116))),
        "asphalt": (92, 92, 96),
        "zebra": (84, 84, 88),
        "grass": chance.pick(((92, 112, 62), (116, 118, 72))),
        "checker": chance.pick(((180, 174, 164), (150, 130, 116))),
        "concrete": (152, 150, 144),
        "cobbles": (122, 118, 114),
        "floor": chance.pick(((186, 180, 170), (160, 158, 160), (170, 146, 116))),
    }[kind]
    return int(red * level), int(green * level), int(blue * level)


def _draw_courses(tile: NDArray[np.float32], high: int, wide: int, line: float, *, shift: int) -> None:
    """Joints between stones; every second course is moved by `shift`."""
    stone = soft_noise(0.0)[: TILE // high, : TILE // wide]
    tile *= (1 + 0.045 * np.repeat(np.repeat(stone, high, 0), wide, 1))[..., None]
    joint = max(1, high // 20)
    for index, top in enumerate(range(0, TILE, high)):
        tile[top : top + joint] *= line
        for left in range(shift * (index % 2), TILE, wide):
            tile[top : top + high, left : left + joint] *= line
