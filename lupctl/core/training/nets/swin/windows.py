"""Maps cut into windows, what tokens of a window see of each other, and where they are to each other."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to the attention between tokens that were not neighbours before a map was shifted, as published.
HIDDEN: Final = -100.0


def pad_map(tokens: Tensor, side: int) -> Tensor:
    """(B, h, w, C) with zeros below and to the right, up to multiples of a side."""
    _, rows, columns, _ = tokens.shape
    below, right = -rows % side, -columns % side
    return F.pad(tokens, (0, 0, 0, right, 0, below)) if below or right else tokens


def cut_windows(tokens: Tensor, side: int) -> Tensor:
    """(B, h, w, C) to (B * windows, side * side, C), row by row; the side divides both sides of the map."""
    batch, rows, columns, channels = tokens.shape
    cut = tokens.view(batch, rows // side, side, columns // side, side, channels)
    return cut.transpose(2, 3).reshape(-1, side * side, channels)


def join_windows(windows: Tensor, side: int, *, rows: int, columns: int) -> Tensor:
    """The reverse of `cut_windows`: (B * windows, side * side, C) to (B, rows, columns, C)."""
    cut = windows.view(-1, rows // side, columns // side, side, side, windows.shape[-1])
    return cut.transpose(2, 3).reshape(-1, rows, columns, windows.shape[-1])


def shift_mask(rows: int, columns: int, *, side: int, shift: int, device: torch.device) -> Tensor:
    """What is added to the attention inside the windows of a map that was rolled up and to the left.

    A window at the lower or right edge then has tokens from two edges of the map, which must not see each other.

    Args:
        rows, columns: of the padded map.
        side: of a window.
        shift: by which the map was rolled.
        device: of the result.

    Returns:
        (windows, side * side, side * side), 0 or `HIDDEN`.
    """

    def bands(length: int) -> Tensor:
        """0 before the last window of a rolled side, 1 in its part that was there before, 2 in what came around."""
        place = torch.arange(length, device=device)
        return (place >= length - side).int() + (place >= length - shift).int()

    region = 3 * bands(rows)[:, None] + bands(columns)[None, :]
    cut = cut_windows(region[None, :, :, None], side)[..., 0]  # (windows, side * side)
    return (cut[:, :, None] != cut[:, None, :]).float() * HIDDEN


def position_index(side: int) -> Tensor:
    """Which row of a table of biases is for each pair of tokens of a window, on the CPU.

    Row (2 * side - 1) * (dy + side - 1) + dx + side - 1 is for a query that is dy rows below its key and dx columns to
    the right of it.

    Args:
        side: of a window.

    Returns:
        (side * side, side * side) int64.

    >>> position_index(2).tolist()
    [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    """
    place = torch.arange(side * side, device="cpu")
    rows, columns = place // side, place % side
    down = rows[:, None] - rows[None, :] + side - 1
    across = columns[:, None] - columns[None, :] + side - 1
    return down * (2 * side - 1) + across


def resize_bias_table(table: Tensor, *, side: int) -> Tensor:
    """A table of biases for windows of another side: bicubic, corners not aligned, as SOLIDER's fine-tuning does.

    Args:
        table: ((2 s - 1) ** 2, heads) for windows of side s.
        side: of the new windows.

    Returns:
        ((2 * side - 1) ** 2, heads); the same table for windows of the same side.
    """
    rows, heads = table.shape
    found, wanted = round(rows**0.5), 2 * side - 1
    assert found * found == rows, f"{rows} biases are no square"
    if found == wanted:
        return table
    image = table.T.reshape(1, heads, found, found)
    resized = F.interpolate(image, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return resized.reshape(heads, -1).T.contiguous()
