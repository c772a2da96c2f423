"""How the stem of a vision transformer cuts an image into patches."""

from typing import Final

from lupctl.core.choices import Stem

# The stem of convolutions halves the image before it cuts patches of half the size.
ICS_PATCH: Final = 16


def count_patches(height: int, width: int, stem: Stem, *, patch: int, stride: int) -> tuple[int, int]:
    """Rows and columns of patches in an image; 0 or less if none fits.

    >>> [count_patches(256, 128, "patch", patch=16, stride=stride) for stride in (16, 12, 11)]
    [(16, 8), (21, 10), (22, 11)]
    """
    if stem == "ics":  # a convolution of stride 2 with padding, then patches of half the size
        height, width, patch, stride = -(-height // 2), -(-width // 2), patch // 2, stride // 2
    return (height - patch) // stride + 1, (width - patch) // stride + 1
