"""A contact sheet: a grid of small images on white paper, with room for words on top and at the left."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.system.disk.atomic import atomic_path, check_absent

CELL_HEIGHT, CELL_WIDTH = 128, 64
GAP: Final = 4
TOP, LEFT = 44, 132  # room for the labels of columns and rows
PAPER, INK, EMPTY = 255, (40, 40, 40), 232
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")


def check_sheet(out: Path, *, force: bool) -> None:
    """Refuses a picture that cannot be written under this name.

    Args:
        out: the picture; its ending determines the encoding.
        force: overwrites an existing picture.

    Raises:
        UsageError: the picture exists, or has an unknown ending.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{out}: the name of a sheet must end in one of {' '.join(SUFFIXES)}", hint=f"--sheet {out}.png"
        )
    check_absent(out, force=force, option="--sheet")


def write_picture(out: Path, sheet: NDArray[np.uint8]) -> None:
    """Write a sheet (H, W, 3) completely or not at all.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    done, encoded = cv2.imencode(out.suffix.lower(), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert done, "OpenCV encodes every 8-bit RGB image"
    with atomic_path(out) as partial:
        partial.write_bytes(encoded.tobytes())


def blank_sheet(num_rows: int, num_columns: int) -> NDArray[np.uint8]:
    """White paper (H, W, 3) for so many cells, and for a title."""
    height, width = corner(num_rows, num_columns)
    return np.full((height, max(width, 420), 3), PAPER, np.uint8)


def corner(row: int, column: int) -> tuple[int, int]:
    """Top and left of a cell."""
    return TOP + row * (CELL_HEIGHT + GAP), LEFT + column * (CELL_WIDTH + GAP)


def cell_of(sheet: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    """The pixels of a cell, to be changed."""
    top, left = corner(row, column)
    return sheet[top : top + CELL_HEIGHT, left : left + CELL_WIDTH]


def paste(sheet: NDArray[np.uint8], pixels: NDArray[np.uint8] | None, row: int, column: int) -> None:
    """Draw an image (H, W, 3) into a cell, scaled to fit; None draws the word for an image that cannot be decoded."""
    cell = cell_of(sheet, row, column)
    cell[:] = EMPTY
    if pixels is None:
        top, left = corner(row, column)
        write_label(sheet, "corrupt", left + 4, top + CELL_HEIGHT // 2)
        return
    scale = min(CELL_HEIGHT / pixels.shape[0], CELL_WIDTH / pixels.shape[1])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    at_y, at_x = (CELL_HEIGHT - height) // 2, (CELL_WIDTH - width) // 2
    cell[at_y : at_y + height, at_x : at_x + width] = small


def title(sheet: NDArray[np.uint8], text: str) -> None:
    """Write the line at the top."""
    cv2.putText(sheet, text, (GAP, 18), FONT, 0.5, INK, 1, cv2.LINE_AA)


def write_label(sheet: NDArray[np.uint8], text: str, left: int, bottom: int) -> None:
    """Write a small word."""
    cv2.putText(sheet, text, (left, bottom), FONT, 0.42, INK, 1, cv2.LINE_AA)
