"""Files of vision transformers that become no checkpoint, and what is said about them."""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.foreign import read_foreign
from tests.references.transreid_layouts import (
    TINY,
    Layout,
    dino_layout,
    draw_state,
    imagenet_layout,
    reid_layout,
    trunk_layout,
)
from tests.tools.published import published
from tests.tools.shell import Ran, Shell

JPM = reid_layout(replace(TINY, tokens=210, cameras=6), classes=5, jpm=True)
PLAIN = reid_layout(TINY, classes=5)
PARTS = reid_layout(replace(TINY, parts=True), classes=5)
ICS = reid_layout(replace(TINY, ics=True), classes=5)


ONE = torch.zeros(1)


def refuse(lupctl: Shell, content: object, options: str = "", *, code: int = 3) -> Ran:
    """The command on a file with such content, which must fail and leave nothing."""
    torch.save(content, "a.pth")
    ran = lupctl(f"model convert a.pth --out a.safetensors {options}")
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert not Path("a.safetensors").exists()
    return ran


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (
            JPM, "--size 256x128 --stride 16",
            "grid of 21 x 10 (256 x 128 at stride 12), 210 positions, but --size 256x128 --stride 16 is 16 x 8 (256 x",
        ),
        (
            PLAIN, "--size 384x128",
            "is 24 x 8 (384 x 128 at stride 16), 192 positions or 31 x 10 (384 x 128 at stride 12), 310 positions or",
        ),
        (PLAIN, "--stride 12", "but --stride 12 is 21 x 10 (256 x 128 at stride 12), 210 positions or 31 x 10"),
        (
            imagenet_layout(replace(TINY, tokens=196)), "--size 256x128",
            "the file has a grid of 14 x 14 (224 x 224 at stride 16), 196 positions, but --size 256x128 is 16 x 8",
        ),
        (
            reid_layout(replace(TINY, tokens=130), classes=5), "",
            "a.pth: 130 positions; no published network has as many, and their number does not say the sides",
        ),
        (
            reid_layout(replace(TINY, tokens=196), classes=5), "",
            "a.pth: 196 positions; no published network has as many",
        ),
    ],
    ids=["both", "size", "stride", "square", "unknown", "a square that was fine-tuned"],
)  # fmt: skip
def test_a_grid_that_does_not_fit_is_named_with_the_one_that_does(
    lupctl: Shell, tmp_path: Path, layout: Layout, options: str, message: str
) -> None:
    ran = refuse(lupctl, draw_state(layout), options)
    assert message in ran.err


def test_a_hint_about_a_grid_works_from_every_command(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(draw_state(reid_layout(replace(TINY, tokens=14 * 7), classes=5)), tmp_path / "a.pth")
    wanted = "hint: say for which images: lupctl model convert a.pth --size 256x128 --stride 12"
    for command in ("info a.pth", "convert a.pth --out b.safetensors"):
        assert lupctl(f"model {command}").err.rstrip().endswith(wanted), command
    assert lupctl("model convert a.pth --out b.safetensors --size 224x112 --stride 16").code == 0
    ran = lupctl("model convert a.pth --out c.safetensors --size 300x224 --stride 300")
    assert "is 1 x 1 (300 x 224 at stride 300), 1 position\n" in ran.err


def test_sizes_and_strides_that_cannot_be(lupctl: Shell, tmp_path: Path) -> None:
    assert (
        "a.pth: images of 256 x 8 leave no patch of 16 x 16 pixels"
        in refuse(lupctl, draw_state(PLAIN), "--size 256x8", code=2).err
    )
    ran = refuse(lupctl, draw_state(ICS), "--stride 12", code=2)
    assert "has the stem of convolutions (ICS), whose stride is 16; --stride 12 would change the grid" in ran.err
    assert refuse(lupctl, draw_state(PLAIN), "--size big", code=2).err.endswith("hint: --size 256x128\n")
    assert "hint: leave out --size 256x128" in refuse(lupctl, {"model": published()}, "--size 256x128").err


def test_a_start_is_no_re_id_model_and_the_reverse(lupctl: Shell, tmp_path: Path) -> None:
    ran = refuse(lupctl, draw_state(imagenet_layout(replace(TINY, tokens=196))), "--reid")
    assert "error: a.pth: a pre-trained vit 128/3/2 trunk without heads, not a re-id model" in ran.err
    assert "hint: to start from it: leave out --reid, then lupctl finetune DATASET --from a.safetensors" in ran.err
    ran = refuse(lupctl, draw_state(JPM), "--start")
    assert "a.pth: a re-id model, vit 128/3/2 stride 12 6 cameras with head jpm, fine-tuned already" in ran.err
    assert "hint: to use it as it is: leave out --start, then lupctl dump a.safetensors DATASET" in ran.err
    assert "a re-id model, r50 width 4 with head mgn" in refuse(lupctl, {"model": published()}, "--start").err


def test_a_recipe_for_images_of_another_size(lupctl: Shell, tmp_path: Path) -> None:
    ran = refuse(lupctl, draw_state(PLAIN), "--recipe mgn-luperson")
    assert "a.pth: its grid is 16 x 8; mgn-luperson is for 384 x 128, which is 24 x 8 at stride 16" in ran.err
    ran = lupctl("model convert a.pth --out a.safetensors --recipe bot --json")
    assert (ran.code, ran.json["pixels"]["constants_from"], ran.json["pixels"]["height"]) == (0, "bot", 256)


@pytest.mark.parametrize(
    ("layout", "key", "number"),
    [
        (PLAIN, "base.pos_embed", float("nan")),
        (JPM, "base.sie_embed", float("inf")),
        (PARTS, "base.part2_pos", float("nan")),
    ],
)
def test_numbers_that_are_not_finite(lupctl: Shell, tmp_path: Path, layout: Layout, key: str, number: float) -> None:
    state = draw_state(layout)
    state[key][0, 0, 3] = number
    ran = refuse(lupctl, state)
    assert f"a.pth: 1 tensor with numbers that are not finite ({key})" in ran.err
    notes = lupctl("model info a.pth --json").json["notes"]
    assert notes[-1] == f"not finite, so that model convert refuses it: {key}"


def test_what_is_left_out_may_be_anything(lupctl: Shell, tmp_path: Path) -> None:
    state = draw_state(PLAIN)
    state["base.fc.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    assert "not finite" not in lupctl("model info a.pth").out


Change = Callable[[dict[str, Tensor]], object]


def drop(*keys: str) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        for key in keys:
            del state[key]

    return change


@pytest.mark.parametrize(
    ("layout", "change", "message", "row"),
    [
        (
            JPM, drop("b2.0.mlp.fc1.bias"),
            "nearest is vit 128/3/2 stride 12 6 cameras with head jpm, but 1 missing (b2.0.mlp.fc1.bias)",
            "b2.0.mlp.fc1.bias - 256",
        ),
        (PLAIN, drop("bottleneck.weight"), "with head bnneck, but 1 missing (bottleneck.weight)", ""),
        (PARTS, drop("base.part_token2"), "1 missing (base.part_token2)", "base.part_token2 - 1 x 1 x 128"),
        (PARTS, drop("base.cls_pos"), "1 missing (base.cls_pos)", "base.cls_pos - 1 x 1 x 128"),
        (
            PLAIN, lambda state: state.update(extra=torch.zeros(2, 3)), "1 not in the network (extra)", "extra 2 x 3 -",
        ),
        (
            dino_layout(TINY, outputs=8, hidden=16), lambda state: state.update({"predictor.weight": torch.zeros(2)}),
            "nearest is vit 128/3/2, but 1 not in the network (predictor.weight)", "predictor.weight 2 -",
        ),
        (
            ICS, lambda state: state.update({"base.patch_embed.proj.weight": torch.zeros(128, 64, 4, 4)}),
            "nearest is vit 128/3/2 ics with head bnneck, but 1 of another shape (base.patch_embed.proj.weight)",
            "base.patch_embed.proj.weight 128 x 64 x 4 x 4 128 x 64 x 8 x 8",
        ),
        (
            JPM, lambda state: state.update({"base.sie_embed": torch.zeros(1, 1, 128)}),
            "1 not in the network (base.sie_embed)", "base.sie_embed 1 x 1 x 128 -",
        ),
    ],
    ids=["branch", "neck", "part token", "part position", "surplus", "surplus of a start", "shape", "one camera"],
)  # fmt: skip
def test_a_partial_fit_names_the_nearest_and_the_published_keys(
    lupctl: Shell, tmp_path: Path, layout: Layout, change: Change, message: str, row: str
) -> None:
    state = draw_state(layout)
    change(state)
    ran = refuse(lupctl, state)
    table, _, error = ran.err.partition("error: ")
    assert message in error
    assert row in " ".join(table.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("base.cls_token"), "tensors of an unknown network"),
        (lambda state: state.update({"base.cls_token": torch.zeros(1, 1, 100)}), "tokens of 100 numbers"),
        (lambda state: state.update({"base.cls_token": torch.zeros(1, 1, 1280)}), "tokens of 1280 numbers"),
        (lambda state: state.update({"base.cls_token": torch.tensor(1.0)}), "tokens of 1 numbers"),
        (lambda state: state.update({"base.pos_embed": torch.zeros(3)}), "positions of shape 3; expected 1 x N x 128"),
        (
            lambda state: state.update({"base.part_token1": torch.zeros(1), "base.pos_embed": torch.ones(1, 210, 128)}),
            "tensors of no possible vision transformer: a jpm has",
        ),
        (lambda state: [state.pop(key) for key in list(state) if ".blocks." in key], "transformer of 0 blocks"),
    ],
    ids=["no class token", "width", "heads of 80", "scalar", "flat", "jpm with parts", "no blocks"],
)
def test_tensors_that_make_no_network(lupctl: Shell, tmp_path: Path, change: Change, message: str) -> None:
    state = draw_state(JPM)
    change(state)
    assert message in refuse(lupctl, state).err


def test_a_prefix_that_nobody_publishes_is_named(lupctl: Shell, tmp_path: Path) -> None:
    ran = refuse(lupctl, {f"net.{key}": value for key, value in draw_state(trunk_layout("", TINY)).items()})
    assert "a vision transformer's tensors under the prefix 'net.', which is not one of the published" in ran.err


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"teacher": {"backbone.cls_token": torch.zeros(1)}}, "--encoder student", "has no student, but a teacher"),
        ({"target_encoder": {"cls_token": torch.zeros(1)}}, "--encoder q", "has no student, but a target_encoder"),
        ({"student": {"module.backbone.cls_token": torch.zeros(1)}}, "", "has no teacher, but a student"),
    ],
)
def test_a_network_that_the_file_lacks(
    lupctl: Shell, tmp_path: Path, content: object, options: str, message: str
) -> None:
    ran = refuse(lupctl, content, options)
    assert f"a.pth: {message}" in ran.err
    assert f"hint: --encoder {'teacher' if options else 'student'} takes that" in ran.err


class Trap:
    """What a hostile file holds: unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize(
    "hostile",
    [argparse.Namespace(lr=Trap()), argparse.Action([], "lr"), np.zeros(3), np.array],
    ids=["inside a namespace", "another class", "an array of numpy", "a function of numpy"],
)
def test_besides_tensors_only_namespaces_and_numbers_are_read(tmp_path: Path, hostile: object) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = tmp_path / "a.pth"
    content = {"teacher": draw_state(dino_layout(TINY, outputs=8, hidden=16)), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, path)
    assert read_foreign(path).inside == ("teacher",)
    torch.save({**content, "args": hostile}, path)
    with pytest.raises(FormatError, match="contains more than tensors and plain values"):
        read_foreign(path)
    assert not Path("trapped").exists()
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("encoder", ["teacher", "student", "q", "k"])
def test_an_encoder_of_a_file_with_one_network(lupctl: Shell, tmp_path: Path, encoder: str) -> None:
    torch.save(draw_state(PLAIN), tmp_path / "a.pth")
    ran = lupctl(f"model convert a.pth --encoder {encoder}")
    assert ran.code == 3
    assert f"a.pth: has one network, not a trained one and its average, of which --encoder {encoder} is one" in ran.err
    assert "hint: leave out --encoder" in ran.err
