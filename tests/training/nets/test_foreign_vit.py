"""Vision transformers of published sizes, recognised by their names and shapes alone."""

from dataclasses import replace

import pytest
import torch

from lupctl.core.formats.weights.plan import NetworkPlan, describe_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.foreign.fitting import Recognised
from lupctl.core.training.nets.foreign.recognise import recognise
from tests.references.transreid_layouts import (
    BASE,
    SMALL,
    Layout,
    Size,
    dino_layout,
    imagenet_layout,
    reid_layout,
)

TINY_ICS = Size(dim=192, depth=12, hidden=768, tokens=128, ics=True)
MARKET, MSMT17 = replace(BASE, tokens=210, cameras=6), replace(BASE, tokens=310, cameras=15)
OLD_SMALL = Size(dim=768, depth=8, hidden=2304, tokens=196, qkv_bias=False)


def look(layout: Layout) -> Recognised:
    """What tensors of such shapes are; no number in them is read."""
    return recognise({key: torch.empty(shape) for key, shape in layout.items()}, origin="file")


def trunk_of(plan: NetworkPlan) -> ViTPlan:
    assert isinstance(plan.trunk, ViTPlan)
    return plan.trunk


# Tensors of the file, and those that are left out: the trunk's classifier, with JPM a block of 12 and a norm, the head
# of a pre-training or of ImageNet.
@pytest.mark.parametrize(
    ("layout", "trunk", "head", "matched", "ignored"),
    [
        (reid_layout(MARKET, classes=751, jpm=True), "vit-b stride 12 6 cameras", "jpm", 195, 16),
        (reid_layout(MSMT17, classes=1041, jpm=True), "vit-b stride 12 15 cameras", "jpm", 195, 16),
        (reid_layout(BASE, classes=751), "vit-b", "bnneck", 156, 2),
        (reid_layout(replace(SMALL, ics=True), classes=751), "vit-s ics", "bnneck", 178, 2),
        (reid_layout(replace(BASE, ics=True, tokens=192), classes=1041), "vit-b ics", "bnneck", 178, 2),
        (reid_layout(replace(SMALL, parts=True), classes=751), "vit-s 3 part tokens", "parts", 178, 2),
        (reid_layout(replace(BASE, parts=True, tokens=192), classes=751), "vit-b 3 part tokens", "parts", 178, 2),
        (reid_layout(TINY_ICS, classes=751), "vit-t ics", "bnneck", 178, 2),
        (dino_layout(replace(SMALL, ics=True), outputs=65_536, prefix="module."), "vit-s ics", "none", 172, 8),
        (dino_layout(SMALL, outputs=65_536), "vit-s", "none", 150, 8),
        (imagenet_layout(replace(BASE, tokens=196)), "vit-b", "none", 150, 2),
        (imagenet_layout(replace(SMALL, tokens=196), distilled=True), "vit-s", "none", 150, 5),
        (imagenet_layout(OLD_SMALL), "vit 768/8/8", "none", 94, 2),
    ],
)  # fmt: skip
def test_every_published_layout_is_recognised_by_its_shapes(
    layout: Layout, trunk: str, head: str, matched: int, ignored: int
) -> None:
    found = look(layout)
    assert (describe_trunk(found.plan.trunk), found.plan.head.kind) == (trunk, head)
    assert (found.differences, found.missing) == ((), ())
    assert (found.matched, len(found.ignored)) == (matched, ignored)
    assert matched + ignored == len(layout)


@pytest.mark.parametrize(
    ("tokens", "size", "stride", "grid"),
    [
        (128, (256, 128), 16, (16, 8)), (192, (384, 128), 16, (24, 8)), (210, (256, 128), 12, (21, 10)),
        (310, (384, 128), 12, (31, 10)), (242, (256, 128), 11, (22, 11)),
    ],
)  # fmt: skip
def test_positions_are_taken_for_the_published_grid(
    tokens: int, size: tuple[int, int], stride: int, grid: tuple[int, int]
) -> None:
    found = look(reid_layout(replace(SMALL, tokens=tokens), classes=5))
    trunk, pixels = trunk_of(found.plan), found.pixels
    assert pixels is not None
    assert ((trunk.rows, trunk.columns), trunk.stride, (pixels.height, pixels.width)) == (grid, stride, size)


@pytest.mark.parametrize(("tokens", "side"), [(196, 14), (576, 24), (144, 12)])
def test_starts_may_have_a_square_grid(tokens: int, side: int) -> None:
    found = look(imagenet_layout(replace(BASE, tokens=tokens)))
    trunk, pixels = trunk_of(found.plan), found.pixels
    assert pixels is not None
    assert (trunk.rows, trunk.columns, trunk.stride, pixels.height, pixels.width) == (
        side,
        side,
        16,
        16 * side,
        16 * side,
    )


def test_heads_have_64_numbers_but_in_timm_s_first_small_network() -> None:
    heads = [
        (trunk_of(look(imagenet_layout(replace(size, tokens=196))).plan).heads, size.dim) for size in (SMALL, BASE)
    ]
    assert heads == [(6, 384), (12, 768)]
    old = trunk_of(look(imagenet_layout(OLD_SMALL)).plan)
    assert (old.heads, old.qk_scale, old.qkv_bias) == (8, 768**-0.5, False)
    like = trunk_of(look(imagenet_layout(replace(OLD_SMALL, depth=9))).plan)
    assert (like.heads, like.qk_scale) == (12, None), "any other network without that bias is an ordinary one"


@pytest.mark.parametrize("jpm", [True, False])
def test_classifiers_and_counters_may_be_absent(jpm: bool) -> None:
    layout = reid_layout(SMALL, classes=751, jpm=jpm)
    bare = {
        key: shape
        for key, shape in layout.items()
        if not key.startswith(("classifier", "base.fc.")) and not key.endswith("num_batches_tracked")
    }
    found = look(bare)
    assert found.differences == ()
    assert len(found.missing) == (5 if jpm else 1)
    assert found.plan.head.model_dump()["classes"] == 0
    if jpm:
        two = {key: shape for key, shape in layout.items() if key != "classifier_3.weight"}
        found = look(two)
        assert found.plan.head.model_dump()["classes"] == 0
        assert {key for key in found.ignored if key.startswith("class")} == {
            "classifier.weight", "classifier_1.weight", "classifier_2.weight", "classifier_4.weight",
        }  # fmt: skip
