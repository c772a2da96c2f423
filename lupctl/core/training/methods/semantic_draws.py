"""What SOLIDER draws in a step: a semantic weight for each image, and the part that is painted over."""

from typing import Final

import numpy as np
from torch import Tensor

from lupctl.core.training.hashing import mix

# Streams of their own among the draws of an image, and among those of a step.
_WEIGHT: Final = 0x53575447
_PART: Final = 0x5350


def draw_weights(keys: Tensor) -> Tensor:
    """A semantic weight for each image, 0 or 1 with equal chances, (b) float32.

    Args:
        keys: (b) int64 of the images in this step, as from `drop_keys`: all views of an image have one weight, in
            whichever process they are.
    """
    return (mix(mix(keys) ^ mix(_WEIGHT)) >> 31).float()


def draw_part(parts: int, *, seed: int, step: int) -> int:
    """The part that is painted over in a step, 1 to R, the same in all processes.

    Args:
        parts: R.
        seed: of the recipe.
        step: counted from 0.
    """
    key = np.array([seed, (_PART << 40) + step], dtype=np.uint64)
    return int(np.random.Generator(np.random.Philox(key=key)).integers(1, parts, endpoint=True))
