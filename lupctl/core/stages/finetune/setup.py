"""Everything a process needs before its first step of fine-tuning, built from the job."""

from collections.abc import Generator
from dataclasses import dataclass

import torch

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.job import FinetuneJob, build_order, has_queries
from lupctl.core.stages.finetune.persons import LabelledRows, pick_rows
from lupctl.core.system.jobs.device import pick_precision
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.training.engine.curves import Epochs
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset, default_workers
from lupctl.core.training.loading.prefetch import load_on_device
from lupctl.core.training.loading.samplers import StepOrder
from lupctl.core.training.views.plan import ViewPlan, build_view_plan


@dataclass(frozen=True)
class Setup:
    """One process's data and device.

    Args:
        device: of this process.
        packs: open.
        tests: those of them that have queries.
        train: what is trained on.
        order: of its images.
        view: how they are made.
        precision: type of the forward pass.
        workers: decoding processes.
        epochs: of the run.
    """

    device: torch.device
    packs: list[Pack]
    tests: list[Pack]
    train: LabelledRows
    order: StepOrder
    view: ViewPlan
    precision: torch.dtype
    workers: int
    epochs: Epochs


def set_up(job: FinetuneJob) -> Setup:
    """Opens the data and picks the device.

    Raises:
        DataError: a pack is missing, damaged, or holds nothing to train on.
    """
    recipe, device = job.recipe, own_device(job.placement.kind)
    packs = [open_pack(path) for path in job.packs]
    train = pick_rows(recipe, packs)
    order = build_order(recipe, train.label, train.camera)
    return Setup(
        device=device,
        packs=packs,
        tests=[pack for pack in packs if has_queries(pack.samples)],
        train=train,
        order=order,
        view=build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump()),
        precision=pick_precision(recipe.precision, device),
        workers=default_workers(device) if job.workers is None else job.workers,
        epochs=order.epochs(recipe.schedule.epochs),
    )


def open_batches(setup: Setup, recipe: FinetuneRecipe, steps: range) -> Generator[Batch, None, None]:
    """This process's share of the batches of some steps, decoded and copied to the device ahead."""
    dataset = StepDataset(
        PackImages(setup.packs, setup.train.rows),
        setup.order,
        (setup.view,),
        seed=recipe.seed,
        rank=rank(),
        processes=world_size(),
        policy_steps=setup.epochs.step_at(recipe.auto_augment_epochs),
    )
    return load_on_device(dataset, steps, workers=setup.workers, device=setup.device)
