"""Position embeddings for another grid of patches: the two resizes of published code, which differ.

The source grid is always an argument: 128 rows may be 16 x 8 or 8 x 16, and nothing in a tensor says which.
"""

from typing import assert_never

import torch.nn.functional as F
from torch import Tensor

from lupctl.core.choices import PositionResize

Grid = tuple[int, int]
# What DINO adds to each side of the target grid before it divides by the source's.
DINO_OFFSET = 0.1


def resize_bilinear(grid: Tensor, *, source: Grid, target: Grid) -> Tensor:
    """TransReID's resize, for fine-tuning at another size: bilinear, corners not aligned.

    Args:
        grid: (1, h * w of the source, D), row by row.
        source, target: rows and columns.

    Returns:
        (1, h * w of the target, D).
    """
    resized = F.interpolate(_to_image(grid, source), size=target, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def resize_dino(grid: Tensor, *, source: Grid, target: Grid) -> Tensor:
    """DINO's resize, for crops of another size: bicubic, with samples ((h + 0.1) / H, (w + 0.1) / W) times as dense.

    The factors are what maps a position of the target to one of the source; with them, DINO kept floors of quotients
    from losing a row. They shift every position a little, which its weights were trained with.

    Args:
        grid: (1, H * W of the source, D), row by row.
        source, target: rows and columns.

    Returns:
        (1, h * w of the target, D).
    """
    factors = tuple((new + DINO_OFFSET) / old for old, new in zip(source, target, strict=True))
    image = _to_image(grid, source)
    resized = F.interpolate(image, scale_factor=factors, mode="bicubic", align_corners=False)
    assert tuple(resized.shape[2:]) == target
    return resized.flatten(2).transpose(1, 2)


def resize_position(grid: Tensor, *, source: Grid, target: Grid, how: PositionResize) -> Tensor:
    """One of the two; the same grid is left as it is."""
    if source == target:
        return grid
    match how:
        case "bilinear":
            return resize_bilinear(grid, source=source, target=target)
        case "dino":
            return resize_dino(grid, source=source, target=target)
        case _:
            assert_never(how)


def _to_image(grid: Tensor, source: Grid) -> Tensor:
    """(1, h * w, D) as (1, D, h, w)."""
    rows, columns = source
    assert grid.shape[1] == rows * columns, f"{grid.shape[1]} positions are no grid of {rows} x {columns}"
    return grid.transpose(1, 2).reshape(1, -1, rows, columns)
