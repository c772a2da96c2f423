"""The ten views of the published recipes, key by key, and that no other recipe's pixels depend on the new switch."""

import numpy as np
import pytest

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe, shipped_recipes
from lupctl.core.stages.pretrain.views import view_plans
from lupctl.core.training.views.plan import Jitter, ViewPlan, draw_views

# Luo et al. 2021, arXiv 2111.12084, and the scripts published with it.
GLOBAL = ViewPlan(
    height=256, width=128, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic",
    crop_area=(0.4, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, grey=0.2, blur=1.0, blur_radius=(0.1, 2.0),
    solarise=0.0, jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1), erase=0.0,
)  # fmt: skip


def plans_of(name: str, **flags: object) -> tuple[ViewPlan, ...]:
    recipe = resolve_recipe("pretrain", name, flags={key.replace("__", "."): value for key, value in flags.items()})
    assert isinstance(recipe, PretrainRecipe)
    return view_plans(recipe)


def what_matters(plan: ViewPlan) -> dict[str, object]:
    """Without the shape of a rectangle that is never drawn."""
    return {key: value for key, value in vars(plan).items() if not key.startswith("erase_")}


@pytest.mark.parametrize("name", ["dino-vit-s", "dino-vit-s-ics", "dino-vit-b-ics"])
def test_the_published_views_are_two_global_and_eight_local_ones(name: str) -> None:
    first, second, *local = plans_of(name)
    assert what_matters(first) == what_matters(GLOBAL)
    assert what_matters(second) == {**what_matters(GLOBAL), "blur": 0.1, "solarise": 0.2}
    small = {**what_matters(GLOBAL), "height": 128, "width": 64, "crop_area": (0.05, 0.4), "blur": 0.5}
    assert [what_matters(plan) for plan in local] == [small] * 8


def test_local_views_follow_their_keys() -> None:
    plans = plans_of("dino-vit-s", local__count=3, local__height=96, local__width=48, local__flip=0.25)
    assert [(plan.height, plan.width, plan.flip) for plan in plans] == [(256, 128, 0.5)] * 2 + [(96, 48, 0.25)] * 3
    assert len(plans_of("dino-vit-s", local__count=0)) == 2


def test_no_other_recipe_solarises() -> None:
    names = [found.name for found in shipped_recipes() if found.stage == "pretrain"]
    names = [name for name in names if "dino" not in name and "solider" not in name]  # which is on top of dino
    assert len(names) > 8
    for name in names:
        plans = plans_of(name)
        size = np.tile(np.array([[128, 64]]), (50, 1))
        for plan, drawn in zip(plans, draw_views(plans, size, np.arange(50), seed=1, epoch=0), strict=True):
            assert plan.solarise == 0
            assert not drawn.solarise.any()
