"""How long a step of fine-tuning takes on this machine, measured on random pixels; reads and writes no file."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.criterion import measure
from lupctl.core.stages.finetune.job import FinetuneJob, network_plan
from lupctl.core.stages.finetune.network import build_classifying, draw_depth, prepare_network
from lupctl.core.system.jobs.device import computing_threads, pick_threads
from lupctl.core.system.jobs.precision import pick_training_precision
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.stopwatch import time_calls
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import build_view_plan, draw_view


@dataclass(frozen=True)
class StepTimes:
    """Durations of steps on one device.

    Args:
        device: that was measured, cuda or cpu.
        batch: images of a step on that device.
        step_s: the fastest after those that warm up.
        first_s: of the first, which compiles the network if it is to be.
        plain_s: where it is, of a step without.
    """

    device: str
    batch: int
    step_s: float
    first_s: float
    plain_s: float | None


def probe_steps(job: FinetuneJob, *, seconds: float) -> StepTimes:
    """Time steps of a job as one of its devices runs them; on the CPU where its devices are not here.

    Args:
        job: its network is compiled or not; neither its data nor its teacher is used.
        seconds: about how long; at least three steps are run, and of a network that is compiled two more without.
    """
    recipe, placement = job.recipe, job.placement
    is_here = placement.kind == "cpu" or torch.cuda.is_available()
    device = torch.device(placement.kind if is_here else "cpu")
    plain_s = None
    with computing_threads(pick_threads(placement, shares=job.local_processes) if is_here else None):
        if recipe.net.compile:
            plain = recipe.model_copy(update={"net": recipe.net.model_copy(update={"compile": False})})
            plain_s = time_step(plain, device, devices=placement.processes, budget_s=seconds / 2)
            seconds /= 2
        step = build_step(recipe, device, devices=placement.processes)
        began_at = time.perf_counter()
        step()
        first_s = time.perf_counter() - began_at
        step_s = time_calls(step, device, budget_s=seconds)
    batch = recipe.data.persons * recipe.data.images // placement.processes
    return StepTimes(device.type, batch, step_s, first_s, plain_s)


def time_step(recipe: FinetuneRecipe, device: torch.device, *, devices: int = 1, budget_s: float = 1.0) -> float:
    """Seconds of one step on one device: its share of the views, forward, backward and the update, without data.

    Args:
        recipe: network, batch and losses.
        device: where it runs.
        devices: that share a batch; messages between them are not measured.
        budget_s: measures until so much time has passed, at least one step after the first.
    """
    return time_calls(build_step(recipe, device, devices=devices), device, budget_s=budget_s)


def build_step(recipe: FinetuneRecipe, device: torch.device, *, devices: int) -> Callable[[], None]:
    """A step on random pixels, to call as often as one likes; as `time_step`."""
    local = recipe.data.persons * recipe.data.images // devices
    plan = network_plan(recipe, max(recipe.data.persons, 2), cameras=range(2))
    network = build_classifying(plan, drop_path=recipe.drop_path)
    prepare_network(network, recipe, device, groups=max(1, recipe.bn_groups // devices))
    optimizer = build_optimizer([network], **recipe.optim.model_dump(exclude={"clip", "clip_scope"}))
    view = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())
    height, width = recipe.pixels.height, recipe.pixels.width
    pixels = torch.randint(0, 256, (local, height, width, 3), dtype=torch.uint8).to(device)
    target = torch.arange(local, device=device) % max(recipe.data.persons, 2)
    draws = SampleDraws(np.arange(local), seed=recipe.seed, epoch=0, view=0)
    drawn = draw_view(view, np.tile([height, width], (local, 1)), draws).tensors().to(device)
    cameras = target % 2 if network.needs_cameras else None
    precision = pick_training_precision(recipe.precision, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        draw_depth(network, recipe, target, step=0)
        made = make_view(view, pixels, drawn)
        loss = measure(recipe, network, made, target, precision, cameras=cameras)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
