"""A picture sheet of search results: one row per query, the query first."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

CELL_HEIGHT, CELL_WIDTH = 128, 64
CAPTION, GAP, AFTER_QUERY = 30, 6, 18
PAPER, EMPTY, INK = 255, 232, (40, 40, 40)
FONT = cv2.FONT_HERSHEY_SIMPLEX

Cell = tuple[NDArray[np.uint8] | None, Sequence[str]]


def draw_sheet(rows: Sequence[tuple[Cell, Sequence[Cell]]]) -> NDArray[np.uint8]:
    """The sheet (H, W, 3), RGB.

    Args:
        rows: for each query its cell and those of its results; a cell is pixels (None if the image is not available)
            and up to two short lines of text under them.
    """
    widest = max((len(hits) for _, hits in rows), default=0)
    width = GAP + CELL_WIDTH + AFTER_QUERY + widest * (CELL_WIDTH + GAP)
    height = GAP + len(rows) * (CELL_HEIGHT + CAPTION + GAP)
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    for number, (query, hits) in enumerate(rows):
        top = GAP + number * (CELL_HEIGHT + CAPTION + GAP)
        _paste(sheet, query, top, GAP)
        for column, hit in enumerate(hits):
            _paste(sheet, hit, top, GAP + CELL_WIDTH + AFTER_QUERY + column * (CELL_WIDTH + GAP))
    return sheet


def _paste(sheet: NDArray[np.uint8], cell: Cell, top: int, left: int) -> None:
    pixels, lines = cell
    area = sheet[top : top + CELL_HEIGHT, left : left + CELL_WIDTH]
    area[:] = EMPTY
    if pixels is not None:
        scale = min(CELL_HEIGHT / pixels.shape[0], CELL_WIDTH / pixels.shape[1])
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        at_y, at_x = (CELL_HEIGHT - height) // 2, (CELL_WIDTH - width) // 2
        area[at_y : at_y + height, at_x : at_x + width] = small
    for number, line in enumerate(lines):
        cv2.putText(sheet, line, (left, top + CELL_HEIGHT + 12 * (number + 1)), FONT, 0.33, INK, 1, cv2.LINE_AA)
