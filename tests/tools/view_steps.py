"""Whole steps of pre-training on drawn views instead of images."""

import pytest
import torch
from torch import Tensor

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain import setup as setting_up
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.setup import Setup, Trained, build_trained
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.methods.build import build_method

CPU = torch.device("cpu")
BATCH, LOCALS = 6, 2
# The views are drawn elsewhere.
EMPTY = Batch(pixels=torch.empty(0), rows=torch.arange(BATCH), keys=torch.arange(BATCH), views=())


def draw_views(step: int, kind: torch.dtype = torch.double) -> tuple[Tensor, ...]:
    """Two global views and some local ones."""
    generator = torch.Generator().manual_seed(step)
    sizes = [(64, 32)] * 2 + [(32, 16)] * LOCALS
    return tuple(torch.randn(BATCH, 3, *size, generator=generator, dtype=torch.double).to(kind) for size in sizes)


def set_up(recipe: PretrainRecipe, kind: torch.dtype, *, precision: torch.dtype) -> tuple[Setup, Trained]:
    order = ShuffledOrder(2 * BATCH, batch=BATCH, seed=recipe.seed)
    setup = Setup(
        device=CPU, packs=[], images=PackImages([]), order=order, views=(), precision=precision, workers=0, total=10,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting_up, "build_method", lambda *given, **more: build_method(*given, **more).to(kind))
        return setup, build_trained(recipe, setup)


def run_steps(
    recipe: PretrainRecipe, setup: Setup, trained: Trained, *, kind: torch.dtype, steps: int
) -> list[dict[str, float]]:
    """The scalars of some whole steps on drawn views."""
    found = []
    for step in range(steps):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_module, "make_views", lambda *given, step=step: draw_views(step, kind))
            values = take_step(recipe, setup, trained, EMPTY, trained.curves.now(step))
        found.append({name: value.item() for name, value in values.items() if value.numel() == 1})
    return found
