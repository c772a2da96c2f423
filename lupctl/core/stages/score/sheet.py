"""A contact sheet of the best, the middle and the worst images by their scores."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.sheet import (
    GAP,
    blank_sheet,
    corner,
    paste,
    title,
    write_label,
    write_picture,
)
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.scores.file import best_first
from lupctl.core.system.examples import count_things

COLUMNS: Final = 12
# Rows of each of the three bands.
ROWS: Final = 2
BANDS: Final = ("best", "middle", "worst")


def pick_bands(score: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """The rows to show in each band, the better ones first; no image is in two of them.

    >>> {band: rows.tolist() for band, rows in pick_bands(np.array([0.1, 0.9, 0.5, 0.7])).items()}
    {'best': [1], 'middle': [3], 'worst': [0]}
    """
    order = best_first(score)
    count = min(COLUMNS * ROWS, max(1, len(order) // len(BANDS)))
    middle = (len(order) - count) // 2
    starts = (0, middle, len(order) - count)
    return {band: order[start : start + count] for band, start in zip(BANDS, starts, strict=True)}


def write_score_sheet(pack: Pack, score: NDArray[np.float64], out: Path) -> None:
    """Draw the sheet of a pack's images by their scores (N).

    Raises:
        DataError: the disk is full.
    """
    bands = pick_bands(score)
    rows_of = {band: -(-len(rows) // COLUMNS) for band, rows in bands.items()}
    sheet = blank_sheet(sum(rows_of.values()), min(COLUMNS, max(map(len, bands.values()))))
    title(sheet, f"{pack.dataset}: {count_things(len(pack), 'image')} by their scores")
    first = 0
    for band, rows in bands.items():
        top = corner(first, 0)[0]
        write_label(sheet, f"{band} {len(rows)}", GAP, top + 20)
        write_label(sheet, f"{score[rows[0]]:.4f}", GAP, top + 40)
        write_label(sheet, f"to {score[rows[-1]]:.4f}", GAP, top + 58)
        for cell, row in enumerate(rows.tolist()):
            paste(sheet, _decode(pack, row), first + cell // COLUMNS, cell % COLUMNS)
        first += rows_of[band]
    write_picture(out, sheet)


def _decode(pack: Pack, row: int) -> NDArray[np.uint8] | None:
    try:
        return decode_rgb(pack.read(row))
    except CorruptImageError:
        return None
