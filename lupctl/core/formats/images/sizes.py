"""Smallest, median and largest size of many images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sizes:
    """Heights and widths in pixels.

    Args:
        smallest: of the image with the fewest pixels.
        median: median height and median width.
        largest: of the image with the most pixels.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


def describe_sizes(size: NDArray[np.uint16]) -> Sizes | None:
    """Smallest, median and largest size; on a tie the first image counts. None when there is no image.

    >>> describe_sizes(np.array([[4, 2], [9, 3], [6, 3]], np.uint16))
    Sizes(smallest=(4, 2), median=(6, 3), largest=(9, 3))

    Args:
        size: (N, 2) height and width.
    """
    if not len(size):
        return None
    pixels = size[:, 0].astype(np.uint32) * size[:, 1]
    return Sizes(
        smallest=_pair(size[pixels.argmin()]),
        median=(int(np.median(size[:, 0])), int(np.median(size[:, 1]))),
        largest=_pair(size[pixels.argmax()]),
    )


def _pair(values: NDArray[np.uint16]) -> tuple[int, int]:
    height, width = values.tolist()
    return int(height), int(width)
