"""Which part of a body each drawn pixel belongs to."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.drawing.person.canvas import Material


class Part(IntEnum):
    """Parts from the top down, numbered as pseudo labels are."""

    BACKGROUND = 0
    UPPER = 1  # head and arms, what is worn on them and on the trunk, bags
    LOWER = 2  # legs and what is worn on them
    SHOES = 3


_LOWER = (Material.LOWER, Material.LOWER_SECOND, Material.LOWER_MIXED, Material.LEG)
_SHOES = (Material.SHOE, Material.SOLE)


def parts_of(material: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Parts of a layer of materials, of the same shape; a dress is worn on the upper body down to its hem."""
    table = np.full(len(Material), Part.UPPER, np.uint8)
    table[Material.NONE] = Part.BACKGROUND
    table[list(_LOWER)] = Part.LOWER
    table[list(_SHOES)] = Part.SHOES
    return table[material]
