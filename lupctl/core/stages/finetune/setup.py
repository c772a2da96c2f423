"""Everything a process needs before its first step of fine-tuning, built from the job."""

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.ranking.retrieval.cameras import CameraTable
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.cameras import build_table, image_cameras
from lupctl.core.stages.finetune.job import FinetuneJob, has_queries, plan_epochs
from lupctl.core.stages.finetune.persons import LabelledRows, pick_rows
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.system.jobs.precision import evaluation_precision, pick_training_precision
from lupctl.core.training.engine.curves import Epochs
from lupctl.core.training.loading.cameras import ImageCameras
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
        view: how they are made.
        cameras: of the training images, for a network that takes them.
        table: of the cameras, for the network and its evaluations.
        precision: type of the passes of training.
        workers: decoding processes.
        epochs: of the run.
    """

    device: torch.device
    packs: list[Pack]
    tests: list[Pack]
    train: LabelledRows
    view: ViewPlan
    cameras: ImageCameras | None
    table: CameraTable | None
    precision: torch.dtype
    workers: int
    epochs: Epochs

    @property
    def scoring(self) -> torch.dtype:
        """Type of the passes that make features."""
        return evaluation_precision(self.precision, self.device)


def set_up(job: FinetuneJob, precision: torch.dtype | None = None) -> Setup:
    """Opens the data and picks the device.

    Args:
        job: what to do.
        precision: type of the passes of training; None for what a new run would take here.

    Raises:
        DataError: a pack is missing, damaged, or holds nothing to train on.
    """
    recipe, device = job.recipe, own_device(job.placement.kind)
    packs = [open_pack(path) for path in job.packs]
    train = pick_rows(recipe, packs)
    return Setup(
        device=device,
        packs=packs,
        tests=[pack for pack in packs if has_queries(pack.samples)],
        train=train,
        view=build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump()),
        cameras=image_cameras(recipe, train),
        table=build_table(recipe, train, packs),
        precision=precision or pick_training_precision(recipe.precision, device),
        workers=default_workers(device) if job.workers is None else job.workers,
        epochs=plan_epochs(recipe, train),
    )


def open_batches(
    setup: Setup,
    recipe: FinetuneRecipe,
    order: StepOrder,
    steps: range,
    *,
    among: NDArray[np.int64] | None = None,
) -> Generator[Batch, None, None]:
    """This process's share of the batches of some steps, decoded and copied to the device ahead.

    Args:
        setup: of this process.
        recipe: its seed.
        order: of the images.
        steps: which.
        among: (K) training images that the order counts; None for all.
    """
    rows, cameras = setup.train.rows, setup.cameras
    if among is not None:
        rows = rows[among]
        cameras = None if cameras is None else replace(cameras, rows=cameras.rows[among])
    dataset = StepDataset(
        PackImages(setup.packs, rows),
        order,
        (setup.view,),
        seed=recipe.seed,
        rank=rank(),
        processes=world_size(),
        policy_steps=setup.epochs.step_at(recipe.auto_augment_epochs),
        cameras=cameras,
    )
    return load_on_device(dataset, steps, workers=setup.workers, device=setup.device)
