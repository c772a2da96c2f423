"""Recipes of self-distillation: the published constants, and the published schedules."""

from typing import Any

import numpy as np
import pytest

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.setup import build_curves
from lupctl.core.stages.pretrain.views import view_plans

# TransReID-SSL's launch scripts and the arguments of its main file; rates are for a batch of 512.
PUBLISHED: dict[str, Any] = {
    "method": "dino",
    "seed": 0,
    "net.pooling": "token",
    "net.compile": False,
    "net.checkpoint_activations": False,
    "vit.patch": 16,
    "vit.stride": 16,
    "vit.depth": 0,
    "vit.parts": 0,
    "vit.position": "dino",
    "vit.drop_path": 0.1,
    "data.batch": 512,
    "data.keep": 0.0,
    "pixels.height": 256,
    "pixels.width": 128,
    "pixels.mean": (0.485, 0.456, 0.406),
    "pixels.std": (0.229, 0.224, 0.225),
    "pixels.interpolation": "bicubic",
    "augment.crop_area": (0.4, 1.0),
    "augment.blur": 1.0,
    "augment.solarise": 0.0,
    "augment_second.crop_area": (0.4, 1.0),
    "augment_second.blur": 0.1,
    "augment_second.solarise": 0.2,
    "local.crop_area": (0.05, 0.4),
    "local.blur": 0.5,
    "local.solarise": 0.0,
    "local.count": 8,
    "local.height": 128,
    "local.width": 64,
    "dino.outputs": 65536,
    "dino.hidden": 2048,
    "dino.bottleneck": 256,
    "dino.momentum": 0.996,
    "dino.temperature": 0.04,
    "dino.student_temperature": 0.1,
    "dino.centre_momentum": 0.9,
    "dino.frozen_epochs": 1,
    "optim.name": "adamw",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.04,
    "optim.vector_decay": 0.0,
    "optim.vector_rate": 1.0,
    "optim.bias_rate": 1.0,
    "optim.clip": 3.0,
    "optim.clip_scope": "tensor",
    "optim.accumulate": 1,
    "schedule.epochs": 100,
    "schedule.kind": "dino",
    "schedule.unit": "step",
    "schedule.warmup_epochs": 10.0,
    "schedule.warmup_factor": 0.0,
    "schedule.final": 0.001,
    "curves.decay.kind": "cosine",
    "curves.decay.final": 0.4,
    "curves.momentum.kind": "cosine",
    "curves.momentum.final": 1.0,
    "curves.temperature.kind": "constant",
}
# The same for each view.
SHARED: dict[str, Any] = {
    "crop_ratio": (3 / 4, 4 / 3),
    "pad": 0,
    "grey": 0.2,
    "blur_radius": (0.1, 2.0),
    "flip": 0.5,
    "erase": 0.0,
    "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
}


def resolve(name: str, *settings: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", name, overrides=settings)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


@pytest.mark.parametrize(
    ("name", "arch", "stem"),
    [("dino-vit-s", "vit-s", "patch"), ("dino-vit-s-ics", "vit-s", "ics"), ("dino-vit-b-ics", "vit-b", "ics")],
)
def test_the_published_constants(name: str, arch: str, stem: str) -> None:
    tables = resolve(name).model_dump()
    views = {f"{view}.{key}": value for view in ("augment", "augment_second", "local") for key, value in SHARED.items()}
    own = {"net.arch": arch, "vit.stem": stem} | ({"bn_groups": 1} if stem == "ics" else {})
    for key, wanted in (PUBLISHED | views | own).items():
        found: Any = tables
        for part in key.split("."):
            found = found[part]
        assert found == wanted, key


def test_a_recipe_without_its_sections_has_the_published_ones() -> None:
    """All but the first global view, whose section belongs to every method."""
    bare = PretrainRecipe(method="dino", net={"arch": "vit-s"})
    shipped = resolve("dino-vit-s")
    assert (bare.dino, bare.augment_second, bare.local) == (shipped.dino, shipped.augment_second, shipped.local)


def test_ten_views_in_the_order_of_the_method() -> None:
    plans = view_plans(resolve("dino-vit-s"))
    assert [(plan.height, plan.width) for plan in plans] == [(256, 128)] * 2 + [(128, 64)] * 8
    assert [(plan.blur, plan.solarise) for plan in plans] == [(1.0, 0.0), (0.1, 0.2)] + [(0.5, 0.0)] * 8
    assert len(view_plans(resolve("dino-vit-s", "local.count=0"))) == 2


@pytest.mark.parametrize(("steps", "epochs", "warmup"), [(7, 100, 10.0), (3, 20, 2.0), (5, 4, 0.0), (1, 3, 1.0)])
def test_schedules_are_the_published_ones(steps: int, epochs: int, warmup: float) -> None:
    """DINO's own: a line of W numbers that ends at the base, then half a cosine over the others, its end excluded."""
    recipe = resolve("dino-vit-s", f"schedule.epochs={epochs}", f"schedule.warmup_epochs={warmup}")
    curves = build_curves(recipe, steps)
    total, line = steps * epochs, int(warmup) * steps

    def published(base: float, final: float, warm: int) -> np.ndarray[Any, Any]:
        inner = np.arange(total - warm)
        falling = final + 0.5 * (base - final) * (1 + np.cos(np.pi * inner / len(inner)))
        return np.concatenate([np.linspace(0.0, base, warm), falling])

    now = [curves.now(step) for step in range(total)]
    np.testing.assert_allclose([one.rate for one in now], published(1e-3, 1e-6, line), rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose([one.decay for one in now], published(0.04, 0.4, 0), rtol=1e-12)
    np.testing.assert_allclose([one.momentum for one in now], published(0.996, 1.0, 0), rtol=1e-12)
    assert {one.temperature for one in now} == {0.04}
