"""What a pre-training command asks for, and what that amounts to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.weights.plan import NetworkPlan, ProjectionHead, ResNetPlan
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import MethodSettings, MocoSettings
from lupctl.core.stages.pretrain.memory import estimate_memory
from lupctl.core.system.jobs.device import Placement, pick_threads
from lupctl.core.system.jobs.outer import Rendezvous
from lupctl.core.system.jobs.split import check_split
from lupctl.core.training.engine.board import check_tensorboard
from lupctl.core.training.loading.samplers import ShuffledOrder


@dataclass(frozen=True)
class PretrainJob:
    """One command's worth of pre-training.

    Args:
        recipe: resolved.
        packs: the data, in the order that numbers the images; none for a plan without data.
        run: the run's folder.
        placement: devices of all machines.
        workers: decoding processes per device; None picks.
        command: the command line, for the record.
        rendezvous: of several machines; None on one machine, and inside a job that torchrun or srun started.
        probe: labelled pack to look at the features with.
        tensorboard: whether the metrics are written as curves too.
        force: start over where a run lies already.
        quiet: no lines, no bars.
    """

    recipe: PretrainRecipe
    packs: tuple[Path, ...]
    run: Path
    placement: Placement
    workers: int | None
    command: tuple[str, ...]
    rendezvous: Rendezvous | None = None
    probe: Path | None = None
    tensorboard: bool = False
    force: bool = False
    quiet: bool = False

    @property
    def local_processes(self) -> int:
        """Processes on this machine."""
        return self.placement.processes // (1 if self.rendezvous is None else self.rendezvous.nodes)


@dataclass(frozen=True)
class PretrainPlan:
    """What a job will do; counts are None where there is no data yet.

    Args:
        images: used per epoch, before the last incomplete batch is left out.
        steps_per_epoch, steps: optimizer updates.
        batch_per_device: images of a step.
        part_per_device: images that are in a device's memory with their activations at a time.
        data_bytes: encoded bytes of the images.
        read_bytes: encoded bytes that the whole run reads, all devices together.
        memory_bytes: estimate per device.
    """

    images: int | None
    steps_per_epoch: int | None
    steps: int | None
    batch_per_device: int
    part_per_device: int
    data_bytes: int | None
    read_bytes: int | None
    memory_bytes: int


def plan_pretraining(job: PretrainJob) -> PretrainPlan:
    """Counts what a job will do, without touching anything.

    Raises:
        DataError: a pack is missing, damaged, or holds nothing to train on, or to probe with.
        UsageError: batch, groups and devices do not fit together, or an extra is missing.
    """
    recipe = job.recipe
    processes = job.placement.processes
    check_split(recipe.data.batch, recipe.bn_groups, processes)
    parts = count_parts(recipe, job.placement.kind, processes=processes)
    check_split(recipe.data.batch, recipe.bn_groups, processes, parts=parts)
    local = recipe.data.batch // processes
    is_half = recipe.precision == "bf16" or (recipe.precision == "auto" and job.placement.kind == "cuda")
    memory = estimate_memory(recipe, student_plan(recipe), processes=processes, parts=parts, is_half=is_half)
    if job.probe is not None:
        check_answerable(open_pack(job.probe).samples)
    if job.tensorboard:
        check_tensorboard()
    if not job.packs:
        return PretrainPlan(None, None, None, local, local // parts, None, None, memory)
    packs = [open_pack(path) for path in job.packs]
    rows = trainable_rows(packs)
    order = ShuffledOrder(len(rows), batch=recipe.data.batch, seed=recipe.seed)
    steps = order.steps_per_epoch * recipe.schedule.epochs
    lengths = np.concatenate([np.diff(shard.offsets) for pack in packs for shard in pack.shards])
    data_bytes = int(lengths[rows].sum())
    return PretrainPlan(
        images=len(rows),
        steps_per_epoch=order.steps_per_epoch,
        steps=steps,
        batch_per_device=local,
        part_per_device=local // parts,
        data_bytes=data_bytes,
        read_bytes=steps * recipe.data.batch * data_bytes // len(rows),
        memory_bytes=memory,
    )


def count_parts(recipe: PretrainRecipe, kind: str, *, processes: int) -> int:
    """Into how many parts a device's share of a batch is cut, one worked through after the other.

    On a CPU every batch-norm group is one. Networks run faster on a batch that fits its caches, and they round by the
    size of their batch: like this, they see the same batches in however many processes the groups lie.

    Args:
        recipe: its batch-norm groups, and its `optim.accumulate` on a GPU.
        kind: of the devices, cpu or cuda.
        processes: of the whole job.
    """
    return recipe.bn_groups // processes if kind == "cpu" else recipe.optim.accumulate


def threads_of(job: PretrainJob) -> int | None:
    """Threads of each process on a CPU, None where they stay as they are.

    As many as a batch-norm group would have if each had a process of its own: convolutions round by their threads too.
    """
    return pick_threads(job.placement, shares=job.recipe.bn_groups)


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


def student_plan(recipe: PretrainRecipe) -> NetworkPlan:
    """The network that a recipe's method trains."""
    net = recipe.net
    settings: MethodSettings = recipe.settings
    trunk = ResNetPlan(kind="resnet", arch=net.arch, width=net.width, last_stride=net.last_stride, ibn=False)
    match settings:
        case MocoSettings():
            head = ProjectionHead(kind="projection", outputs=settings.dim)
            return NetworkPlan(trunk=trunk, pooling=net.pooling, head=head)
