"""Boxes of a frame, and the pixels inside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.data.video.boxes import clip_boxes, round_boxes
from lupctl.core.errors import UsageError

# Whole pixels beyond this are not told apart from the edge; converting more to integers is not defined.
FARTHEST = 1e9


def read_boxes(boxes: Any) -> NDArray[np.float64]:
    """(n, 4) left, top, right and bottom in pixels.

    Args:
        boxes: such numbers as an array, a tensor or a list, or detections that have them as `xyxy`.

    Raises:
        UsageError: they are of another shape.
    """
    found = getattr(boxes, "xyxy", boxes)
    if isinstance(found, Tensor):
        found = found.detach().cpu().numpy()
    hint = "net.embed(frame, boxes=[[left, top, right, bottom]])"
    try:
        numbers = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"boxes={type(boxes).__name__}: four numbers for each box were expected", hint=hint) from error
    if numbers.size == 0:
        return np.zeros((0, 4))
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        raise UsageError(f"boxes of shape {numbers.shape}: four numbers for each box were expected", hint=hint)
    return numbers


def cut_boxes(pixels: NDArray[np.uint8], boxes: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
    """The part of a frame in each box, rounded and clipped as `data build` does; views of the frame, nothing is copied.

    Args:
        pixels: (H, W, 3).
        boxes: (n, 4), right and bottom exclusive.

    Raises:
        UsageError: a box is not finite, or no pixel of it is inside the frame.
    """
    height, width = pixels.shape[:2]
    rounded = round_boxes(np.clip(np.nan_to_num(boxes), -FARTHEST, FARTHEST))
    clipped = clip_boxes(rounded, height=height, width=width)
    is_finite = np.asarray(np.isfinite(boxes).all(axis=1))
    is_whole = np.asarray((clipped[:, :2] < clipped[:, 2:]).all(axis=1))
    for row in np.flatnonzero(~is_finite | ~is_whole)[:1].tolist():
        box = ", ".join(f"{value:g}" for value in boxes[row].tolist())
        what = f"no pixel of it is inside the frame of {width} x {height}" if is_finite[row] else "it is not finite"
        raise UsageError(
            f"box {row} ({box}): {what}; left, top, right and bottom in pixels were expected",
            hint="leave such boxes out before",
        )
    return [pixels[top:bottom, left:right] for left, top, right, bottom in clipped.tolist()]
