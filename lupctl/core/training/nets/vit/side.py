"""Side information embedding (SIE): what is added to all tokens of an image for its camera (arXiv 2102.04378, 3.3)."""

from typing import Final

import torch
from torch import Tensor

# In the place of a row: the mean of the table's rows, for a camera that the network never saw; and no term at all.
MEAN_ROW: Final = -1
NO_ROW: Final = -2


def side_term(table: Tensor, unknown: Tensor | None, rows: Tensor) -> Tensor:
    """The embedding of each image's camera.

    Args:
        table: (R, 1, D).
        unknown: (1, 1, D), the learned row of unknown cameras; None if the network has none.
        rows: (B) int64: 0 to R - 1 of the table; R, the unknown row; `MEAN_ROW`; `NO_ROW`. An error on a CPU otherwise.

    Returns:
        (B, 1, D); NaN for row R if there is no such row, so that nobody takes it for an answer.
    """
    last = torch.full_like(table[:1], torch.nan) if unknown is None else unknown
    is_mean, is_none = rows == MEAN_ROW, rows == NO_ROW
    known = torch.cat([table, last]).index_select(0, rows.masked_fill(is_mean | is_none, 0))
    found = torch.where(is_mean[:, None, None], table.mean(dim=0, keepdim=True), known)
    return found.masked_fill(is_none[:, None, None], 0.0)
