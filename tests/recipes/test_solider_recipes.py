"""Recipes of SOLIDER's two stages: the published constants."""

from typing import Any

import pytest

from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.recipes.words import recipe_words
from lupctl.core.resolve.training.solider import FIRST_STAGE
from lupctl.core.stages.finetune.job import network_plan
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.stages.pretrain.setup import build_curves
from lupctl.core.stages.pretrain.views import view_plans

# SOLIDER's launch scripts and arguments, of both stages; the first stage runs for 100 epochs, the second for 10.
PUBLISHED: dict[str, Any] = {
    "seed": 0,
    "net.pooling": "avg",
    "swin.patch": 4,
    "swin.window": 7,
    "swin.depths": (),
    "swin.semantic_weight": 0.0,
    "swin.drop_path": 0.1,
    "data.batch": 384,
    "data.keep": 0.0,
    "pixels.height": 256,
    "pixels.width": 128,
    "pixels.mean": (0.485, 0.456, 0.406),
    "pixels.std": (0.229, 0.224, 0.225),
    "augment.crop_area": (0.8, 1.0),
    "augment_second.crop_area": (0.8, 1.0),
    "local.crop_area": (0.05, 0.8),
    "augment.crop_ratio": (0.4, 0.6),
    "augment_second.crop_ratio": (0.4, 0.6),
    "local.crop_ratio": (0.4, 0.6),
    "local.count": 8,
    "local.height": 128,
    "local.width": 64,
    "dino.outputs": 65536,
    "dino.momentum": 0.996,
    "dino.temperature": 0.04,
    "dino.student_temperature": 0.1,
    "dino.frozen_epochs": 1,
    "optim.name": "adamw",
    "optim.weight_decay": 0.04,
    "optim.clip": 3.0,
    "optim.clip_scope": "tensor",
    "curves.decay.final": 0.4,
    "curves.momentum.final": 1.0,
}
STAGES: dict[str, dict[str, Any]] = {
    "dino": {"method": "dino", "optim.lr": 7.5e-4, "schedule.epochs": 100, "schedule.warmup_epochs": 10.0},
    "solider": {
        "method": "solider",
        "optim.lr": 7.5e-5,
        "schedule.epochs": 10,
        "schedule.warmup_epochs": 1.0,
        "solider.parts": 3,
        "solider.part_head": "frozen",
        "solider.part_hidden": 2048,
        "solider.part_bottleneck": 256,
        "solider.weight": 1.0,
        "solider.foreground": 0.5,
        "solider.restarts": 10,
        "solider.start": "",
    },
}


def resolve(name: str, *settings: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", name, overrides=settings)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


@pytest.mark.parametrize("size", ["t", "s", "b"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_published_constants(stage: str, size: str) -> None:
    """Rates end at 1e-6, and a batch of 384 has 384 / 256 of DINO's 0.0005 and of the second stage's 5e-5."""
    recipe = resolve(f"{stage}-swin-{size}")
    tables = recipe.model_dump()
    for key, wanted in (PUBLISHED | STAGES[stage] | {"net.arch": f"swin-{size}"}).items():
        found: Any = tables
        for part in key.split("."):
            found = found[part]
        assert found == wanted, key
    assert recipe.optim.lr * recipe.schedule.final == pytest.approx(1e-6)
    assert build_curves(recipe, 7).now(7 * recipe.schedule.epochs - 1).rate == pytest.approx(1e-6, rel=0.1)
    assert describe_trunk(student_plan(recipe).trunk) == f"swin-{size} semantic weight 0"
    assert [(plan.height, plan.width) for plan in view_plans(recipe)] == [(256, 128)] * 2 + [(128, 64)] * 8
    assert recipe.local is not None
    bare = PretrainRecipe(method=recipe.method, net={"arch": f"swin-{size}"})
    assert (bare.dino, bare.solider) == (recipe.dino, recipe.solider)


@pytest.mark.parametrize("second", FIRST_STAGE)
def test_the_second_stage_starts_from_the_first(second: str) -> None:
    """The same networks and views; where there is a partner for fine-tuning, its trunk too."""
    one, two = resolve(FIRST_STAGE[second]), resolve(second)
    assert student_plan(one) == student_plan(two)
    for name in ("dino", "pixels", "augment", "augment_second", "local", "data", "bn_groups"):
        assert getattr(one, name) == getattr(two, name), name
    partner = resolve_recipe("finetune", "small-swin" if second.startswith("small") else second)
    assert isinstance(partner, FinetuneRecipe)
    trunks = [student_plan(two).trunk, network_plan(partner, 5).trunk]
    weights = [trunk.semantic_weight for trunk in trunks if isinstance(trunk, SwinPlan)]
    assert weights == [0.0, 0.2]
    assert len({trunk.model_copy(update={"semantic_weight": 0.0}) for trunk in trunks}) == 1


def test_a_recipe_in_words() -> None:
    assert recipe_words(resolve("solider-swin-b"))["network"] == "SOLIDER on Swin-B, semantic weight 0"
