"""The two resizes of position embeddings against slow loops over their definitions."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lupctl.core.training.nets.vit.position import Grid, resize_bilinear, resize_dino, resize_position
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.networks import tiny_vit

PAIRS = [((14, 14), (16, 8)), ((16, 8), (21, 10)), ((16, 8), (24, 8)), ((16, 8), (8, 4)), ((4, 2), (1, 1))]


def draw_embedding(source: Grid) -> Tensor:
    """Numbers as large as a trained embedding's; published code, too, rounds coordinates to float32."""
    return torch.randn(1, source[0] * source[1], 3) * 0.3


def triangle(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


def cubic(distance: float) -> float:
    """Keys's kernel with a = -0.75, as torch and OpenCV have it."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_slowly(
    grid: Tensor, source: Grid, target: Grid, *, kernel: Callable[[float], float], reach: int, offset: float
) -> Tensor:
    """Each target position as a weighted sum over its neighbours in the source; positions outside repeat the border.

    Target position i is at (i + 0.5) / factor - 0.5 in the source, where factor = (target + offset) / source.
    """
    image = grid.view(*source, -1).double()
    result = torch.zeros(*target, grid.shape[-1], dtype=torch.float64)
    factors = [(new + offset) / old for new, old in zip(target, source, strict=True)]
    for row in range(target[0]):
        for column in range(target[1]):
            y, x = (row + 0.5) / factors[0] - 0.5, (column + 0.5) / factors[1] - 0.5
            for r in range(math.floor(y) - reach + 1, math.floor(y) + reach + 1):
                for c in range(math.floor(x) - reach + 1, math.floor(x) + reach + 1):
                    pixel = image[min(max(r, 0), source[0] - 1), min(max(c, 0), source[1] - 1)]
                    result[row, column] += kernel(y - r) * kernel(x - c) * pixel
    return result.view(1, target[0] * target[1], -1)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_bilinear_is_its_definition(source: Grid, target: Grid) -> None:
    torch.manual_seed(1)
    grid = draw_embedding(source)
    expected = resize_slowly(grid, source, target, kernel=triangle, reach=1, offset=0.0)
    found = resize_bilinear(grid, source=source, target=target)
    assert float((found.double() - expected).abs().max()) < 2e-6


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_dino_is_bicubic_with_a_tenth_more(source: Grid, target: Grid) -> None:
    torch.manual_seed(2)
    grid = draw_embedding(source)
    expected = resize_slowly(grid, source, target, kernel=cubic, reach=2, offset=0.1)
    found = resize_dino(grid, source=source, target=target)
    assert float((found.double() - expected).abs().max()) < 2e-6
    without = resize_slowly(grid, source, target, kernel=cubic, reach=2, offset=0.0)
    assert float((found.double() - without).abs().max()) > 1e-3, "the tenth shows"


@pytest.mark.parametrize("rows", range(1, 33))
def test_dino_gives_the_grid_asked_for(rows: int) -> None:
    grid = torch.randn(1, 16 * 8, 2)
    for columns in range(1, 17):
        assert resize_dino(grid, source=(16, 8), target=(rows, columns)).shape == (1, rows * columns, 2)


def test_the_same_grid_is_left_alone_and_another_number_of_positions_is_our_own_mistake() -> None:
    grid = torch.randn(1, 128, 4)
    for how in ("bilinear", "dino"):
        assert resize_position(grid, source=(16, 8), target=(16, 8), how=how) is grid
    with pytest.raises(AssertionError, match="128 positions are no grid of 21 x 10"):
        resize_bilinear(grid, source=(21, 10), target=(16, 8))


def test_the_source_grid_decides() -> None:
    grid = torch.arange(128.0).view(1, 128, 1)
    tall = resize_bilinear(grid, source=(16, 8), target=(8, 4))
    wide = resize_bilinear(grid, source=(8, 16), target=(8, 4))
    assert not torch.allclose(tall, wide)


@pytest.mark.parametrize("how", ["bilinear", "dino"])
def test_a_trunk_resizes_the_grid_and_no_other_token(how: str) -> None:
    """As a trunk whose embedding was resized beforehand."""
    torch.manual_seed(3)
    trunk = ViTTrunk(tiny_vit(parts=3, position=how)).eval()
    larger = ViTTrunk(tiny_vit(parts=3, rows=6, columns=3)).eval()
    resize = resize_bilinear if how == "bilinear" else resize_dino
    state = dict(trunk.state_dict())
    special, grid = state["pos_embed"][:, :4], state["pos_embed"][:, 4:]
    state["pos_embed"] = torch.cat([special, resize(grid, source=(4, 2), target=(6, 3))], dim=1)
    larger.load_state_dict(state)
    images = torch.randn(2, 3, 96, 48)
    with torch.no_grad():
        for one, other in zip(trunk(images), larger(images), strict=True):
            torch.testing.assert_close(one, other)
