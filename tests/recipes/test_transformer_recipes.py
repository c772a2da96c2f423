"""Recipes of vision transformers: the published constants, and keys that do not go together."""

from typing import Any

import pytest

from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe, shipped_recipes
from lupctl.core.recipes.vit_sections import FinetuneVit, count_grid
from lupctl.core.recipes.words import recipe_words
from lupctl.core.stages.finetune.job import network_plan
from lupctl.core.stages.pretrain.job import student_plan
from tests.tools.nets.transreid_family import FAMILY

START = {"optim.lr": 0.008, "schedule.warmup_epochs": 5, "schedule.lag": False, "data.persons": 16}
END = {"optim.lr": 0.0004, "schedule.warmup_epochs": 20, "schedule.lag": True, "data.persons": 16}
PLAIN = {"net.head": "bnneck", "net.pooling": "token", "vit.stem": "patch", "vit.stride": 16, "augment.erase": 0.5}
ICS = {**PLAIN, "vit.stem": "ics"}
JPM = {
    **PLAIN, **START, "net.arch": "vit-b", "net.head": "jpm", "vit.stride": 12, "sie.cameras": True, "sie.scale": 3.0,
    "sie.unknown": 0.0, "jpm.shift": 5, "jpm.groups": 2, "jpm.parts": 4,
}  # fmt: skip
PARTS = {**PLAIN, **END, "net.pooling": "parts", "vit.parts": 3, "pixels.height": 256}
PUBLISHED: dict[str, dict[str, Any]] = {
    "transreid-vit-b": {**PLAIN, **START, "net.arch": "vit-b", "pixels.height": 256},
    "transreid-deit-b": {**PLAIN, **START, "net.arch": "vit-b", "pixels.height": 256, "augment.erase": 0.8},
    "transreid-vit-b-s12-sie-jpm": {**JPM, "pixels.height": 256},
    "transreid-vit-b-s12-sie-jpm-384": {**JPM, "pixels.height": 384},
    "transreid-ssl-vit-s": {**PLAIN, **END, "net.arch": "vit-s", "pixels.height": 256},
    "transreid-ssl-vit-s-ics": {**ICS, **END, "net.arch": "vit-s", "pixels.height": 256},
    "transreid-ssl-vit-b-ics": {**ICS, **END, "net.arch": "vit-b", "pixels.height": 384},
    "pass-vit-s": {**PARTS, "net.arch": "vit-s"},
    "pass-vit-b": {**PARTS, "net.arch": "vit-b"},
    "personvit-s": {**PLAIN, **END, "net.arch": "vit-s", "pixels.height": 256},
    "personvit-b": {**PLAIN, **END, "net.arch": "vit-b", "pixels.height": 256},
    "cion-vit-t": {**ICS, **END, "net.arch": "vit-t", "optim.lr": 0.0032, "data.persons": 128, "pixels.height": 256},
    "cion-vit-s": {**ICS, **END, "net.arch": "vit-s", "optim.lr": 0.0032, "data.persons": 128, "pixels.height": 256},
    "cion-vit-b": {**ICS, **END, "net.arch": "vit-b", "optim.lr": 0.0024, "data.persons": 96, "pixels.height": 256},
}
# mAP and rank-1 on Market-1501, as each project states them.
SCORES = {
    "transreid-vit-b": "86.8/94.7", "transreid-deit-b": "86.6/94.4", "transreid-vit-b-s12-sie-jpm": "88.9/95.2",
    "transreid-vit-b-s12-sie-jpm-384": "89.5/95.2", "transreid-ssl-vit-s": "91.0/96.0",
    "transreid-ssl-vit-s-ics": "91.3/96.2", "transreid-ssl-vit-b-ics": "93.2/96.7", "pass-vit-s": "92.2/96.3",
    "pass-vit-b": "93.0/96.8", "personvit-s": "92.9/96.8", "personvit-b": "95.0/97.6", "cion-vit-t": "91.4/96.3",
    "cion-vit-s": "92.8/96.5", "cion-vit-b": "93.1/96.9",
}  # fmt: skip
GRIDS = {
    "transreid-vit-b": (16, 8),
    "transreid-vit-b-s12-sie-jpm": (21, 10),
    "transreid-vit-b-s12-sie-jpm-384": (31, 10),
    "transreid-ssl-vit-b-ics": (24, 8),
    "pass-vit-s": (16, 8),
    "small-vit": (16, 8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants(name: str) -> None:
    recipe = resolve_recipe("finetune", name)
    assert isinstance(recipe, FinetuneRecipe)
    for key, wanted in {**FAMILY, **PUBLISHED[name]}.items():
        found: Any = recipe.model_dump()
        for part in key.split("."):
            found = found[part]
        assert found == pytest.approx(wanted), key
    if recipe.net.head != "jpm":
        assert recipe.sie is not None
        assert (recipe.sie.cameras, recipe.jpm) == (False, None)
    header = next(one for one in shipped_recipes() if one.name == name).header
    assert f"Market-1501 {SCORES[name]}" in header["Score"]
    assert "published" in header["Score"]
    assert "followed as published" in header["Quirks"]


@pytest.mark.parametrize("name", GRIDS)
def test_the_grid_comes_from_pixels_stride_and_patch(name: str) -> None:
    recipe = resolve_recipe("finetune", name)
    assert isinstance(recipe, FinetuneRecipe)
    trunk = network_plan(recipe, 5, range(1, 7)).trunk
    assert trunk.kind == "vit"
    assert (trunk.rows, trunk.columns) == GRIDS[name]
    assert recipe.vit is not None
    assert count_grid(recipe.vit, recipe.pixels) == GRIDS[name]


@pytest.mark.parametrize(("height", "width"), [(256, 128), (31, 17), (47, 16), (33, 48)])
@pytest.mark.parametrize("stem", ["patch", "ics"])
def test_the_recipe_counts_patches_as_the_plan_does(height: int, width: int, stem: str) -> None:
    sets = [f"pixels.height={height}", f"pixels.width={width}", f"vit.stem={stem}"]
    recipe = resolve_recipe("finetune", "personvit-s", overrides=sets)
    assert isinstance(recipe, FinetuneRecipe)
    trunk = network_plan(recipe, 5).trunk
    assert trunk.kind == "vit"
    assert recipe.vit is not None
    assert (trunk.rows, trunk.columns) == count_grid(recipe.vit, recipe.pixels)


def test_a_plan_has_a_table_for_two_cameras_or_more() -> None:
    recipe = resolve_recipe("finetune", "transreid-vit-b-s12-sie-jpm", overrides=["sie.unknown=0.1"])
    assert isinstance(recipe, FinetuneRecipe)
    found = []
    for cameras in ((), (4,), (1, 5), ("a/1", "a/2", "b/1")):
        trunk = network_plan(recipe, 5, cameras).trunk
        assert trunk.kind == "vit"
        found.append((trunk.cameras, trunk.side_rows, trunk.unknown_camera))
    assert found == [(0, 0, False), (0, 0, False), (2, 2, True), (3, 3, True)]


@pytest.mark.parametrize(
    ("recipe", "sets", "message"),
    [
        ("bot", ["vit.stride=12"], "[vit] is a section of vit-t, vit-s and vit-b; this recipe's net.arch is r50"),
        ("bot", ["sie.cameras=true"], "[sie] is a section of vit-t, vit-s and vit-b; this recipe's net.arch is r50"),
        ("bot", ["jpm.shift=3"], "[jpm] is a section of the head jpm; this recipe's net.head is bnneck"),
        ("personvit-s", ["jpm.shift=3"], "[jpm] is a section of the head jpm; this recipe's net.head is bnneck"),
        ("transreid-vit-b-s12-sie-jpm", ["net.arch=r50"], "[vit] is a section of vit-t, vit-s and vit-b"),
        ("bot", ["net.head=jpm"], "net.head = 'jpm' needs the tokens of a vit; net.arch is r50"),
        ("bot", ["net.pooling=token"], "net.pooling = 'token' needs the tokens of a vit; net.arch is r50"),
        ("bot", ["net.arch=vit-s"], "net.last_stride = 1 is of residual networks; net.arch is vit-s"),
        ("personvit-s", ["net.width=32"], "net.width = 32 is of residual networks; net.arch is vit-s"),
        ("personvit-s", ["net.ibn=true"], "net.ibn = True is of residual networks"),
        ("personvit-s", ["net.extra_bn=true"], "net.extra_bn = True is of residual networks"),
        ("personvit-s", ["net.head=mgn"], "net.head = 'mgn' takes a residual trunk apart; net.arch is vit-s"),
        ("mgn-luperson", ["net.arch=vit-b"], "net.head = 'mgn' takes a residual trunk apart; net.arch is vit-b"),
        ("mgn-luperson", ["net.feature=before"], "net.feature = 'before' is of bnneck and jpm; net.head is mgn"),
        ("personvit-s", ["net.pooling=parts"], "net.pooling = 'parts' needs part tokens: vit.parts = 3"),
        ("pass-vit-s", ["net.head=jpm"], "net.head = 'jpm' takes the class token"),
        ("transreid-vit-b-s12-sie-jpm", ["vit.depth=1"], "needs one before it: vit.depth = 2 or more"),
        ("cion-vit-t", ["vit.stride=12"], "vit.patch = 16, vit.stride = 12; the ics stem has 16 and 16"),
        ("personvit-s", ["pixels.width=15"], "pixels.height = 256, pixels.width = 15 leave no patch of 16 pixels"),
        ("cion-vit-t", ["pixels.width=14"], "pixels.height = 256, pixels.width = 14 leave no patch of 16 pixels"),
        ("personvit-s", ["vit.stride=0"], "vit.stride: input should be greater than 0, got 0"),
        ("personvit-s", ["vit.drop_path=1"], "vit.drop_path: input should be less than 1, got 1"),
        ("personvit-s", ["vit.parts=9"], "vit.parts: input should be less than or equal to 8, got 9"),
        ("transreid-vit-b-s12-sie-jpm", ["sie.unknown=1"], "sie.unknown: input should be less than 1, got 1"),
        ("transreid-vit-b-s12-sie-jpm", ["sie.cameras=false", "sie.unknown=0.1"],
         "sie: unknown = 0.1 hides cameras from a network that takes none; cameras = true is expected"),
        ("transreid-vit-b-s12-sie-jpm", ["jpm.shift=0"], "jpm.shift: input should be greater than or equal to 1"),
        ("transreid-vit-b-s12-sie-jpm", ["pixels.height=32", "pixels.width=16"],
         "a grid of 2 x 1 patches is too small for [jpm], which needs 5"),
        ("personvit-s", ["vit.strid=12"], "unknown recipe key 'vit.strid'; did you mean 'vit.stride'?"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_refused(recipe: str, sets: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_recipe("finetune", recipe, overrides=sets)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


def test_a_transformer_has_the_defaults_of_its_family() -> None:
    recipe = resolve_recipe("pretrain", "small-moco", flags={"net.arch": "vit-s", "net.width": 64})
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.vit is not None
    assert (recipe.net.pooling, recipe.vit.stem, recipe.vit.stride, recipe.vit.depth) == ("token", "patch", 16, 0)
    plan = student_plan(recipe)
    assert (plan.trunk.arch, plan.pooling, plan.head.kind) == ("vit-s", "token", "projection")
    assert FinetuneRecipe(vit=FinetuneVit(), net={"arch": "vit-t"}).net.pooling == "token"
    assert FinetuneRecipe(vit=FinetuneVit(parts=2), net={"arch": "vit-t"}).sie is not None
    with pytest.raises(UsageError, match=r"vit\.drop_path = 0\.1 is of the method dino"):
        resolve_recipe("pretrain", "luperson-moco-vit", overrides=["vit.drop_path=0.1"])


def test_a_recipe_in_words() -> None:
    words = {name: recipe_words(resolve_recipe("finetune", name))["network"] for name in (*PUBLISHED, "small-vit")}
    assert words["transreid-vit-b"] == "BNNeck on ViT-B/16"
    assert words["transreid-vit-b-s12-sie-jpm"] == "TransReID with its jigsaw patch module on ViT-B/16, stride 12"
    assert words["transreid-ssl-vit-s-ics"] == "BNNeck on ViT-S/16, ICS stem"
    assert words["pass-vit-b"] == "BNNeck on ViT-B/16, 3 part tokens"
    assert words["small-vit"] == "BNNeck on ViT-T/8, 3 blocks"
