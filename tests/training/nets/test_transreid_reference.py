"""The slow reference of TransReID, itself checked: published sizes, torch's interpolation, and orders by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.references.transreid import Said, block, rearrange, slow_bilinear, slow_dino
from tests.references.transreid_layouts import (
    BASE,
    SMALL,
    TINY,
    Layout,
    block_layout,
    count_elements,
    dino_layout,
    draw_state,
    reid_layout,
)

TARGETS = [(16, 8), (21, 10), (24, 8), (8, 4), (7, 9), (31, 10), (1, 1)]


@pytest.mark.parametrize(
    ("layout", "tensors", "elements"),
    [
        (reid_layout(replace(BASE, tokens=210, cameras=6), classes=751, jpm=True), 211, 103_661_037),
        (reid_layout(replace(SMALL, ics=True), classes=751), 180, 23_676_204),
        (dino_layout(replace(SMALL, ics=True), outputs=1024, prefix="module."), 180, 28_773_827),
        (dino_layout(SMALL, outputs=1024), 158, 27_412_096),
        (reid_layout(replace(SMALL, parts=True), classes=751), 180, 22_609_772),
    ],
    ids=["transreid", "ssl", "ssl teacher with ics", "ssl teacher", "pass"],
)
def test_layouts_have_the_published_sizes(layout: Layout, tensors: int, elements: int) -> None:
    assert (len(layout), count_elements(layout)) == (tensors, elements)


def as_map(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return grid.reshape(1, *size, -1).permute(0, 3, 1, 2)


def as_grid(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).reshape(1, -1, maps.shape[1])


@pytest.mark.parametrize("source", [(16, 8), (14, 14), (3, 2)])
@pytest.mark.parametrize("target", TARGETS)
def test_resizes_are_those_of_the_definition(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch.manual_seed(0)
    grid = torch.randn(1, source[0] * source[1], 3, dtype=torch.float64)
    wanted = F.interpolate(as_map(grid, source), size=target, mode="bilinear", align_corners=False)
    assert (slow_bilinear(grid, source, target) - as_grid(wanted)).abs().max() < 1e-12
    factors = [(new + 0.1) / old for old, new in zip(source, target, strict=True)]
    wanted = F.interpolate(as_map(grid, source), scale_factor=factors, mode="bicubic")
    assert wanted.shape[2:] == target
    assert (slow_dino(grid, source, target) - as_grid(wanted)).abs().max() < 1e-12


def test_patches_are_shifted_by_four_and_interleaved() -> None:
    tokens = torch.arange(9.0).view(1, 9, 1)
    assert rearrange(tokens, shift=5, groups=2).flatten().tolist() == [5, 1, 6, 2, 7, 3, 8, 4]
    assert rearrange(tokens[:, :8], shift=5, groups=2).flatten().tolist() == [5, 2, 6, 3, 7, 4, 1, 3]


def test_a_block_is_torch_s_own_attention_with_another_epsilon() -> None:
    state = draw_state(block_layout("b", TINY), dtype=torch.float64)
    x = torch.randn(2, 5, TINY.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = torch.nn.TransformerEncoderLayer(
        TINY.dim, 2, TINY.hidden, dropout=0, activation="gelu", norm_first=True, layer_norm_eps=1e-6, batch_first=True
    ).double()
    names = {
        "norm1.": "norm1.", "norm2.": "norm2.", "attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj.",
        "mlp.fc1.": "linear1.", "mlp.fc2.": "linear2.",
    }  # fmt: skip
    own = {key.removeprefix("b."): value for key, value in state.items()}
    layer.load_state_dict(
        {
            theirs + key.removeprefix(ours): own[key]
            for ours, theirs in names.items()
            for key in own
            if key.startswith(ours)
        }
    )
    with torch.no_grad():
        assert (block(state, "b", x, Said(heads=2)) - layer(x)).abs().max() < 1e-12
