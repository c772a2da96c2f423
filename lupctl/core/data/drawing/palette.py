"""Colours people wear, as RGB with their frequency; few on purpose, so that many persons share them."""

from typing import Final

from lupctl.core.data.drawing.chance import Chance

Colour = tuple[int, int, int]
Palette = tuple[tuple[Colour, float], ...]

UPPER: Final[Palette] = (
    ((28, 28, 31), 20),  # black
    ((58, 60, 66), 9),  # charcoal
    ((128, 130, 134), 9),  # grey
    ((222, 222, 220), 15),  # white
    ((33, 40, 72), 9),  # navy
    ((52, 88, 152), 7),  # blue
    ((150, 178, 212), 6),  # light blue
    ((158, 34, 42), 6),  # red
    ((92, 28, 40), 3),  # maroon
    ((216, 152, 168), 4),  # pink
    ((48, 96, 66), 3),  # green
    ((92, 96, 62), 4),  # olive
    ((208, 178, 70), 2),  # yellow
    ((194, 176, 146), 5),  # beige
    ((104, 76, 54), 3),  # brown
    ((100, 68, 128), 2),  # purple
    ((206, 108, 48), 2),  # orange
)

LOWER: Final[Palette] = (
    ((26, 26, 29), 26),  # black
    ((40, 48, 76), 18),  # dark denim
    ((70, 92, 132), 12),  # denim
    ((134, 156, 186), 6),  # washed denim
    ((64, 66, 70), 9),  # charcoal
    ((122, 124, 126), 6),  # grey
    ((166, 148, 116), 7),  # khaki
    ((92, 74, 56), 3),  # brown
    ((212, 210, 204), 3),  # white
    ((76, 82, 58), 3),  # olive
)

SKIRT: Final[Palette] = (*LOWER, ((150, 44, 56), 5), ((206, 158, 168), 4), ((58, 92, 84), 3), ((196, 176, 122), 3))

SHOES: Final[Palette] = (
    ((24, 23, 24), 34),
    ((70, 68, 70), 10),
    ((214, 214, 212), 22),
    ((98, 66, 44), 12),
    ((46, 56, 92), 6),
    ((160, 44, 46), 4),
    ((150, 132, 104), 6),
)

BAG: Final[Palette] = (
    ((26, 26, 28), 30),
    ((62, 64, 70), 12),
    ((44, 54, 92), 10),
    ((116, 76, 48), 12),
    ((150, 36, 44), 6),
    ((188, 164, 128), 6),
    ((70, 92, 66), 5),
    ((200, 198, 192), 4),
    ((206, 112, 60), 3),
)

SKIN: Final[Palette] = (
    ((236, 200, 176), 5),
    ((224, 182, 150), 8),
    ((204, 158, 124), 6),
    ((168, 120, 88), 4),
    ((122, 82, 58), 3),
    ((84, 56, 42), 2),
)

HAIR: Final[Palette] = (
    ((24, 20, 19), 40),
    ((48, 34, 26), 18),
    ((82, 56, 38), 12),
    ((142, 104, 62), 7),
    ((198, 164, 108), 5),
    ((136, 134, 132), 8),
    ((206, 204, 200), 3),
    ((118, 50, 30), 3),
)


def pick_colour(chance: Chance, palette: Palette, *, spread: float = 5.0) -> Colour:
    """A colour from the palette, made a little lighter or darker."""
    base = chance.pick([colour for colour, _ in palette], [weight for _, weight in palette])
    shift = chance.bell(0.0, spread)
    red, green, blue = (round(min(245.0, max(10.0, level + shift + chance.bell(0.0, spread / 3)))) for level in base)
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Perceived lightness, 0 to 255 (ITU-R BT.601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A mix of two colours, with `share` of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
