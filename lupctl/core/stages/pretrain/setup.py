"""Everything a process needs before its first step of pre-training, built from the job."""

from collections.abc import Generator
from dataclasses import dataclass

import torch

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.stages.pretrain.job import PretrainJob, trainable_rows
from lupctl.core.system.jobs.device import pick_precision
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset, default_workers, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.plan import ViewPlan, build_view_plan


@dataclass(frozen=True)
class Setup:
    """One process's data and device.

    Args:
        device: of this process.
        packs: open.
        images: what is trained on.
        order: of the images.
        view: how both views are made.
        precision: type of the forward pass.
        workers: decoding processes.
        total: steps of the run.
    """

    device: torch.device
    packs: list[Pack]
    images: PackImages
    order: ShuffledOrder
    view: ViewPlan
    precision: torch.dtype
    workers: int
    total: int


def set_up(job: PretrainJob) -> Setup:
    """Opens the data and picks the device.

    Raises:
        DataError: a pack is missing, damaged, or holds nothing to train on.
    """
    recipe, device = job.recipe, own_device(job.placement.kind)
    packs = [open_pack(path) for path in job.packs]
    images = PackImages(packs, trainable_rows(packs))
    order = ShuffledOrder(len(images), batch=recipe.data.batch, seed=recipe.seed)
    return Setup(
        device=device,
        packs=packs,
        images=images,
        order=order,
        view=build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump()),
        precision=pick_precision(recipe.precision, device),
        workers=default_workers(device) if job.workers is None else job.workers,
        total=order.steps_per_epoch * recipe.schedule.epochs,
    )


def open_batches(setup: Setup, steps: range, *, seed: int) -> Generator[Batch, None, None]:
    """This process's share of the batches of some steps, decoded ahead."""
    views = (setup.view, setup.view)
    dataset = StepDataset(setup.images, setup.order, views, seed=seed, rank=rank(), processes=world_size())
    return open_loader(dataset, steps, workers=setup.workers, pin=setup.device.type == "cuda")
