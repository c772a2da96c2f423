"""Turns materials and light into colours: patterns of cloth, folds, skin."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.palette import Colour, mix
from lupctl.core.data.drawing.person.canvas import NEUTRAL, Canvas, Material
from lupctl.core.data.drawing.person.pose import View
from lupctl.core.data.drawing.person.traits import Garment, Traits

FOLD_TILES = 12
# How strongly folds show on a material, as a share of its brightness.
FOLDS = {
    Material.UPPER: 0.13, Material.UPPER_SECOND: 0.13, Material.UPPER_MIXED: 0.13, Material.INNER: 0.12,
    Material.LOWER: 0.13, Material.LOWER_SECOND: 0.13, Material.LOWER_MIXED: 0.13,
    Material.HAIR: 0.22, Material.HEADWEAR: 0.12, Material.BAG: 0.1,
}  # fmt: skip


def paint(canvas: Canvas, traits: Traits, view: View, *, tile: int) -> NDArray[np.uint8]:
    """The canvas in BGR colours, black outside the figure (H, W, 3).

    Args:
        canvas: with a figure on it; patterned cloth is cut into its colours in place.
        traits: the person's colours.
        view: the figure's view, so that patterns stay with the body.
        tile: selects the arrangement of folds; any number.
    """
    _cut(canvas.material, traits.upper.cloth, (Material.UPPER, Material.UPPER_SECOND, Material.UPPER_MIXED), view, 0.8)
    _cut(canvas.material, traits.lower.cloth, (Material.LOWER, Material.LOWER_SECOND, Material.LOWER_MIXED), view, 0.5)
    height, width = canvas.material.shape
    shade = cv2.GaussianBlur(canvas.shade, (0, 0), max(0.6, height / 200))
    folds = cv2.LUT(canvas.material, _fold_table())
    tile_pixels = cv2.resize(_fold_tiles()[tile % FOLD_TILES], (width, height), interpolation=cv2.INTER_LINEAR)
    # shade + folds * (tile - 128) / 128, kept in integers of 16 bits
    light = shade.astype(np.int16) + ((folds.astype(np.int16) * (tile_pixels.astype(np.int16) - NEUTRAL)) >> 7)
    np.clip(light, 0, 255, out=light)
    lit = light.astype(np.uint8)
    flat = cv2.applyColorMap(canvas.material, _colour_table(traits))
    # Even black cloth shines a little: part of the light is added, not multiplied.
    shine = cv2.convertScaleAbs(lit, alpha=0.22, beta=-18)
    return np.asarray(
        cv2.add(cv2.multiply(flat, cv2.merge((lit, lit, lit)), scale=1 / NEUTRAL), cv2.merge((shine, shine, shine)))
    )


def _cut(
    material: NDArray[np.uint8], cloth: Garment, names: tuple[Material, Material, Material], view: View, top: float
) -> None:
    """Replaces a garment's first material by its second and mixed ones where the pattern says so."""
    if cloth.pattern in ("plain", "logo"):
        return
    plain, second, mixed = names
    height, width = material.shape
    up = (view.y - np.arange(height)) / view.tall  # height above ground, in body heights
    across = (np.arange(width) - view.x) / (view.stretch * view.tall)
    # Around the trunk the cloth turns away: equal steps of cloth get narrower towards the sides.
    around = np.arcsin(np.clip(across / 0.13, -1, 1)) * 0.13 + view.angle * 0.1
    here = material == plain
    rows = ((up - top) / cloth.period) % 1.0 < 0.5
    columns = (around / cloth.period) % 1.0 < 0.5
    match cloth.pattern:
        case "rows":
            material[here & rows[:, None]] = second
        case "columns":
            material[here & columns[None, :]] = second
        case "checks":
            material[here & (rows[:, None] ^ columns[None, :])] = mixed
            material[here & rows[:, None] & columns[None, :]] = second
        case "band":
            material[here & (np.abs(up - 0.68) < 0.9 * cloth.period)[:, None]] = second
        case "yoke":
            material[here & (up > 0.66)[:, None]] = second
        case "blotches":
            spots = cv2.resize(_blotches(), (width, height), interpolation=cv2.INTER_LINEAR)
            material[here & (spots > 150)] = second
            material[here & (spots < 90)] = mixed
        case "plain" | "logo":
            pass


@lru_cache(maxsize=512)
def _colour_table(traits: Traits) -> NDArray[np.uint8]:
    upper, lower, head = traits.upper.cloth, traits.lower.cloth, traits.head
    colours: dict[Material, Colour] = {
        Material.SKIN: head.skin,
        Material.LEG: head.skin,
        Material.HAIR: head.hair,
        Material.UPPER: upper.colour,
        Material.UPPER_SECOND: upper.second,
        Material.UPPER_MIXED: mix(upper.colour, upper.second, 0.5),
        Material.INNER: traits.upper.inner,
        Material.LOWER: lower.colour,
        Material.LOWER_SECOND: lower.second,
        Material.LOWER_MIXED: mix(lower.colour, lower.second, 0.5),
        Material.SHOE: traits.shoes,
        Material.SOLE: (206, 205, 200),
        Material.BAG: traits.bag_colour,
        Material.BAG_DARK: mix(traits.bag_colour, (20, 20, 22), 0.5),
        Material.HEADWEAR: head.headwear_colour,
        Material.INK: (34, 28, 28),
        Material.LIPS: mix(head.skin, (150, 50, 56), 0.55),
    }
    table = np.zeros((256, 1, 3), np.uint8)
    for material, colour in colours.items():
        table[material, 0] = colour[::-1]
    return table


@lru_cache(maxsize=1)
def _fold_table() -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for material, strength in FOLDS.items():
        table[material] = round(strength * 255)
    return table


@lru_cache(maxsize=1)
def _fold_tiles() -> list[NDArray[np.uint8]]:
    """Slanted soft creases: noise blurred along a direction, a few layers added up."""
    generator = np.random.Generator(np.random.PCG64(20))
    tiles = []
    for index in range(FOLD_TILES):
        layers = np.zeros((128, 64), np.float64)
        for long, thin in ((6.0, 2.2), (3.0, 1.2)):
            noise = cv2.GaussianBlur(generator.random((192, 128)) - 0.5, (0, 0), sigmaX=long, sigmaY=thin)
            slant = cv2.getRotationMatrix2D((64, 96), -40 + 80 * (index % 4) / 3, 1.0)
            turned = cv2.warpAffine(noise, slant, (128, 192), borderMode=cv2.BORDER_REFLECT)[32:160, 32:96]
            layers += turned / turned.std()
        tiles.append(np.clip(np.rint(128 + 44 * layers), 0, 255).astype(np.uint8))
    return tiles


@lru_cache(maxsize=1)
def _blotches() -> NDArray[np.uint8]:
    noise = cv2.GaussianBlur(np.random.Generator(np.random.PCG64(21)).random((128, 64)), (0, 0), 2.6)
    return np.asarray(np.clip(np.rint(120 + 40 * (noise - noise.mean()) / noise.std()), 0, 255), np.uint8)
