"""Recipes of Swin transformers: the published constants, and keys that do not go together."""

from typing import Any

import pytest

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe, shipped_recipes
from lupctl.core.recipes.words import recipe_words
from lupctl.core.stages.finetune.job import network_plan
from lupctl.core.stages.pretrain.job import student_plan
from tests.tools.nets.transreid_family import FAMILY

# What TransReID's family has in common with SOLIDER's fine-tuning, and what is SOLIDER's own.
COMMON = {
    **{key: value for key, value in FAMILY.items() if not key.startswith("vit.")},
    "net.head": "bnneck",
    "net.pooling": "avg",
    "swin.patch": 4,
    "swin.window": 7,
    "swin.depths": (),
    "swin.semantic_weight": 0.2,
    "swin.train_controller": False,
    "swin.drop_path": 0.1,
    "data.persons": 16,
    "pixels.height": 384,
    "augment.erase": 0.5,
    "schedule.warmup_epochs": 20,
    "schedule.lag": True,
}
WEIGHT = "swin.semantic_weight: a number from 0 to 1, or none, is expected"
PUBLISHED = {
    "solider-swin-t": ("swin-t", 8e-4, "91.6/96.1"),
    "solider-swin-s": ("swin-s", 2e-4, "93.3/96.6"),
    "solider-swin-b": ("swin-b", 2e-4, "93.9/96.9"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants(name: str) -> None:
    arch, rate, score = PUBLISHED[name]
    recipe = resolve_recipe("finetune", name)
    assert isinstance(recipe, FinetuneRecipe)
    for key, wanted in {**COMMON, "net.arch": arch, "optim.lr": rate}.items():
        found: Any = recipe.model_dump()
        for part in key.split("."):
            found = found[part]
        assert found == pytest.approx(wanted), key
    assert (recipe.vit, recipe.sie, recipe.jpm) == (None, None, None)
    header = next(one for one in shipped_recipes() if (one.stage, one.name) == ("finetune", name)).header
    assert f"Market-1501 {score}" in header["Score"]
    assert "followed as published" in header["Quirks"]
    assert describe_trunk(network_plan(recipe, 5).trunk) == f"{arch} semantic weight 0.2"


def test_the_small_one_has_a_last_map_like_the_published_ones() -> None:
    recipe = resolve_recipe("finetune", "small-swin")
    assert isinstance(recipe, FinetuneRecipe)
    trunk = network_plan(recipe, 5).trunk
    assert isinstance(trunk, SwinPlan)
    assert trunk.grid(recipe.pixels.height, recipe.pixels.width) == (8, 4)
    assert describe_trunk(trunk) == "swin-u depths 1-1-2-2 patch 2 window 4 semantic weight 0.2"


@pytest.mark.parametrize(
    ("recipe", "sets", "message"),
    [
        ("bot", ["swin.window=7"], "[swin] is a section of swin-u, swin-t, swin-s and swin-b; this recipe's"),
        ("personvit-s", ["swin.window=7"], "[swin] is a section of swin-u, swin-t, swin-s and swin-b"),
        ("solider-swin-t", ["vit.stride=12"], "[vit] is a section of vit-t, vit-s and vit-b; this recipe's net"),
        ("solider-swin-t", ["sie.cameras=true"], "[sie] is a section of vit-t, vit-s and vit-b"),
        ("solider-swin-t", ["net.arch=r50"], "[swin] is a section of swin-u"),
        ("bot", ["net.arch=swin-t"], "net.last_stride = 1 is of residual networks; net.arch is swin-t"),
        ("solider-swin-t", ["net.width=32"], "net.width = 32 is of residual networks; net.arch is swin-t"),
        ("solider-swin-t", ["net.head=mgn"], "net.head = 'mgn' is not of swins, which have bnneck; net.arch is swin-t"),
        ("solider-swin-t", ["net.head=jpm"], "net.head = 'jpm' is not of swins"),
        ("solider-swin-t", ["net.pooling=token"], "net.pooling = 'token' needs the tokens of a vit; net.arch"),
        ("solider-swin-t", ["swin.depths=[2, 2]"], "swin.depths = [2, 2]; a Swin has 4 stages"),
        ("solider-swin-t", ["swin.depths=[2, 2, 0, 2]"], "swin.depths.2: input should be greater than or equal to 1"),
        ("solider-swin-t", ["swin.window=1"], "swin.window: input should be greater than or equal to 2, got 1"),
        ("solider-swin-t", ["swin.semantic_weight=1.5"], f"{WEIGHT}, got 1.5"),
        ("solider-swin-t", ["swin.semantic_weight=-1"], f"{WEIGHT}, got -1"),
        ("solider-swin-t", ["swin.semantic_weight=nan"], "a number from 0 to 1, or none"),
        ("solider-swin-t", ["swin.semantic_weight=off"], f"{WEIGHT}, got 'off'"),
        ("solider-swin-t", ["swin.semantic_weight=none", "swin.train_controller=true"], "needs a controller"),
        ("solider-swin-t", ["swin.drop_path=1"], "swin.drop_path: input should be less than 1, got 1"),
        ("solider-swin-t", ["swin.semantic=1"], "unknown recipe key 'swin.semantic'; did you mean"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_refused(recipe: str, sets: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_recipe("finetune", recipe, overrides=sets)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


def test_pre_training_has_a_controller_at_zero_and_no_stochastic_depth() -> None:
    recipe = resolve_recipe("pretrain", "small-moco", flags={"net.arch": "swin-u", "net.width": 64})
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.swin is not None
    assert (recipe.swin.semantic_weight, recipe.drop_path, recipe.has_batch_norm) == (0.0, 0.0, False)
    plan = student_plan(recipe)
    assert (plan.trunk.arch, plan.pooling, describe_trunk(plan.trunk)) == ("swin-u", "avg", "swin-u semantic weight 0")
    sets = ["net.arch=swin-u", "net.width=64", "swin.drop_path=0.1"]
    with pytest.raises(UsageError, match=r"swin\.drop_path = 0\.1 is of the methods dino and") as caught:
        resolve_recipe("pretrain", "small-moco", overrides=sets)
    assert caught.value.hint == "--set swin.drop_path=0.0"


def test_a_recipe_in_words() -> None:
    words = {name: recipe_words(resolve_recipe("finetune", name))["network"] for name in (*PUBLISHED, "small-swin")}
    assert words["solider-swin-b"] == "BNNeck on Swin-B, semantic weight 0.2"
    assert words["small-swin"] == "BNNeck on Swin-U, patch 2, window 4, 1-1-2-2 blocks, semantic weight 0.2"
