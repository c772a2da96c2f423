"""What a pre-training command asks for, and what that amounts to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.device import Placement
from lupctl.core.dist import check_split
from lupctl.core.errors import DataError
from lupctl.core.formats.pack import Pack, open_pack
from lupctl.core.loading.samplers import ShuffledOrder
from lupctl.core.nets.build import NetworkPlan
from lupctl.core.nets.estimate import activation_bytes, parameter_bytes
from lupctl.core.recipes.models import PretrainRecipe


@dataclass(frozen=True)
class PretrainJob:
    """One command's worth of pre-training.

    Args:
        recipe: resolved.
        packs: the data, in the order that numbers the images.
        run: the run's folder.
        placement: devices.
        workers: decoding processes per device; None picks.
        command: the command line, for the record.
        force: start over where a run lies already.
        quiet: no lines, no bars.
    """

    recipe: PretrainRecipe
    packs: tuple[Path, ...]
    run: Path
    placement: Placement
    workers: int | None
    command: tuple[str, ...]
    force: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class PretrainPlan:
    """What a job will do.

    Args:
        images: used per epoch, before the last incomplete batch is left out.
        steps_per_epoch, steps: optimizer updates.
        batch_per_device: images.
        data_bytes: encoded bytes of the images.
        memory_bytes: estimate per device: two networks, gradient, momentum, queue and activations in float32.
    """

    images: int
    steps_per_epoch: int
    steps: int
    batch_per_device: int
    data_bytes: int
    memory_bytes: int


def plan_pretraining(job: PretrainJob) -> PretrainPlan:
    """Counts what a job will do, without touching anything.

    Raises:
        DataError: a pack is missing, damaged, or holds nothing to train on.
        UsageError: batch, groups and devices do not fit together.
    """
    recipe = job.recipe
    check_split(recipe.data.batch, recipe.bn_groups, job.placement.processes)
    packs = [open_pack(path) for path in job.packs]
    rows = trainable_rows(packs)
    order = ShuffledOrder(len(rows), batch=recipe.data.batch, seed=recipe.seed)
    net = network_plan(recipe)
    local = recipe.data.batch // job.placement.processes
    weights = parameter_bytes(net)
    activations = activation_bytes(net, height=recipe.pixels.height, width=recipe.pixels.width)
    queue = recipe.moco.dim * recipe.moco.queue * 4
    return PretrainPlan(
        images=len(rows),
        steps_per_epoch=order.steps_per_epoch,
        steps=order.steps_per_epoch * recipe.schedule.epochs,
        batch_per_device=local,
        data_bytes=sum(pack.num_bytes for pack in packs),
        memory_bytes=4 * weights + 2 * queue + local * activations,
    )


def trainable_rows(packs: list[Pack]) -> NDArray[np.int64]:
    """Rows of the concatenated packs that may be trained on: unlabelled and train images, never the test's.

    Raises:
        DataError: there are none.
    """
    role = np.concatenate([pack.samples.role for pack in packs])
    rows = np.flatnonzero((role == ROLE_CODES["unlabelled"]) | (role == ROLE_CODES["train"]))
    if len(rows) == 0:
        names = ", ".join(str(pack.path) for pack in packs)
        raise DataError(f"{names}: no unlabelled or training images, only queries and gallery", hint="--data NAME")
    return rows


def network_plan(recipe: PretrainRecipe) -> NetworkPlan:
    """The network a recipe describes."""
    net = recipe.net
    return NetworkPlan(net.arch, net.width, net.last_stride, net.pooling, head="projection", outputs=recipe.moco.dim)
