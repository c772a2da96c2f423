"""How long a step of pre-training takes on this machine, measured on random pixels; reads and writes no file."""

import numpy as np
import torch

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.labels import TrainLabels
from lupctl.core.stages.pretrain.setup import Setup, build_trained
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.stages.pretrain.views import view_plans
from lupctl.core.system.jobs.precision import pick_training_precision
from lupctl.core.training.engine.stopwatch import time_calls
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.plan import draw_views


def time_step(recipe: PretrainRecipe, device: torch.device, *, budget_s: float = 1.0) -> float:
    """Seconds of one step on one device: views, method and update, without data.

    Args:
        recipe: whose batch is for one device.
        device: where it runs.
        budget_s: measures until so much time has passed, at least one step after the first.
    """
    setup = random_setup(recipe, device)
    trained = build_trained(recipe, setup)
    batch = random_batch(recipe, setup, recipe.data.batch).to(device)

    def step() -> None:
        take_step(recipe, setup, trained, batch, trained.curves.now(0))

    return time_calls(step, device, budget_s=budget_s)


def random_setup(recipe: PretrainRecipe, device: torch.device, labels: TrainLabels | None = None) -> Setup:
    """What a process needs for steps on random pixels: no data, and an epoch of one step."""
    count = recipe.data.batch
    return Setup(
        device=device,
        packs=[],
        images=PackImages([]),
        order=ShuffledOrder(count, batch=count, seed=recipe.seed),
        views=view_plans(recipe),
        precision=pick_training_precision(recipe.precision, device),
        workers=0,
        total=recipe.schedule.epochs,
        labels=labels,
    )


def random_batch(recipe: PretrainRecipe, setup: Setup, count: int, *, first: int = 0) -> Batch:
    """Images of random pixels, of the size of the network's input, with the draws of their views.

    Args:
        recipe: gives the size.
        setup: gives the views.
        count: number of images.
        first: row of the first of them; the rest follow.
    """
    height, width = recipe.pixels.height, recipe.pixels.width
    rows = np.arange(first, first + count)
    views = draw_views(setup.views, np.tile([height, width], (count, 1)), rows, seed=recipe.seed, epoch=0)
    return Batch(
        pixels=torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8),
        rows=torch.from_numpy(rows),
        keys=torch.from_numpy(rows),
        views=tuple(view.tensors() for view in views),
    )
