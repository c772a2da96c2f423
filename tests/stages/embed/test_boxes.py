"""Boxes are cut as `data build` cuts them, without a copy; and what is no box is named."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lupctl.core.errors import UsageError
from lupctl.core.stages.embed.boxes import cut_boxes, read_boxes
from tests.tools.tiny.images import draw_tiny

FRAME = draw_tiny(1, 40, 64)


def cut_slowly(box: tuple[float, float, float, float]) -> Any:
    """Pixel by pixel from the definition: rounded half to even, and those of the frame."""
    left, top, right, bottom = (round(side) for side in box)  # Python rounds half to even
    rows = [row for row in range(top, bottom) if 0 <= row < 40]
    columns = [column for column in range(left, right) if 0 <= column < 64]
    return np.array([[FRAME[row, column] for column in columns] for row in rows])


@pytest.mark.parametrize(
    "box",
    [(3, 4, 20, 30), (0.5, 1.5, 9.5, 10.5), (-7.2, -3, 12.4, 60), (-1e12, -1e30, 1e12, 1e30), (63.4, 39.4, 64, 40)],
)
def test_a_crop_has_the_pixels_of_its_box(box: tuple[float, float, float, float]) -> None:
    wanted = cut_slowly(box) if max(map(abs, box)) < 1e9 else FRAME
    (crop,) = cut_boxes(FRAME, np.array([box], np.float64))
    np.testing.assert_array_equal(crop, wanted)
    assert np.shares_memory(crop, FRAME)


def test_boxes_of_any_kind() -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    array = np.array(rows, np.float64)
    for given in (rows, array, array.astype(np.float32), torch.tensor(rows), SimpleNamespace(xyxy=array)):
        np.testing.assert_array_equal(read_boxes(given), array)
    nothing: tuple[Any, ...] = ([], np.zeros((0, 4)), SimpleNamespace(xyxy=np.zeros((0, 4), np.float32)))
    for given in nothing:
        assert read_boxes(given).shape == (0, 4)
    assert cut_boxes(FRAME, np.zeros((0, 4))) == []


@pytest.mark.parametrize(
    "given", [[1, 2, 3, 4], [[1, 2, 3]], [[1, 2, 3, 4, 0.9]], "boxes", [["a", 1, 2, 3]], [[1], [2, 3]]]
)
def test_other_things_are_no_boxes(given: Any) -> None:
    with pytest.raises(UsageError, match="four numbers for each box were expected"):
        read_boxes(given)


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ((70, 3, 90, 20), r"box 1 \(70, 3, 90, 20\): no pixel of it is inside the frame of 64 x 40"),
        ((-30, 3, -2, 20), "no pixel of it is inside"),
        ((20, 3, 10, 20), "no pixel of it is inside"),
        ((10, 3, 10.4, 20), r"box 1 \(10, 3, 10.4, 20\): no pixel"),
        ((np.nan, 3, 10, 20), r"box 1 \(nan, 3, 10, 20\): it is not finite"),
        ((0, 0, np.inf, 20), "it is not finite"),
    ],
)
def test_a_box_without_pixels_is_named(box: tuple[float, ...], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        cut_boxes(FRAME, np.array([(0, 0, 5, 5), box, box], np.float64))
