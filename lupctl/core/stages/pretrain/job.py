"""Settings of a pre-training run, and the plan that follows from them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lupctl.core.errors import UsageError
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.split import packed_same_camera
from lupctl.core.formats.weights.header import KeptImages
from lupctl.core.formats.weights.plan import NetworkPlan, NoHead, ProjectionHead
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import (
    MethodSettings,
    MocoSettings,
    PnlSettings,
    SimclrSettings,
    SupconSettings,
    uses_labels,
)
from lupctl.core.recipes.text import recipe_tables
from lupctl.core.stages.pretrain.keeping import Choice, keep_best
from lupctl.core.stages.pretrain.labels import (
    LUPERSON_NL_LABELS,
    check_labels,
    labelled_rows,
    number_labels,
    trainable_rows,
)
from lupctl.core.stages.pretrain.memory import estimate_memory
from lupctl.core.stages.pretrain.starts.load import check_start
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.jobs.compiling import check_compiler
from lupctl.core.system.jobs.device import Placement, pick_threads
from lupctl.core.system.jobs.outer import Rendezvous
from lupctl.core.system.jobs.precision import expect_precision
from lupctl.core.system.jobs.split import check_split
from lupctl.core.training.engine.board import check_tensorboard
from lupctl.core.training.loading.samplers import ShuffledOrder


@dataclass(frozen=True)
class PretrainJob:
    """The settings of one pre-training run.

    Args:
        recipe: resolved.
        packs: the data, in the order that numbers the images; empty for a plan without data.
        run: the run's folder.
        placement: devices of all machines.
        workers: decoding processes per device; None for the default.
        command: the command line, for the record.
        start: method file that the networks of solider begin from; None for random weights.
        rendezvous: of several machines; None on one machine, and inside a job that torchrun or srun started.
        probe: labelled pack to evaluate the features on.
        tensorboard: whether the metrics are also written as curves.
        force: start over if there is already a run.
        quiet: no lines, no bars.
    """

    recipe: PretrainRecipe
    packs: tuple[Path, ...]
    run: Path
    placement: Placement
    workers: int | None
    command: tuple[str, ...]
    start: Path | None = None
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
    """What a job will do; counts are None if there is no data yet.

    Args:
        images: number of images per epoch, before the last incomplete batch is left out.
        steps_per_epoch, steps: optimizer updates.
        batch_per_device: images per step.
        part_per_device: images whose activations are in a device's memory at the same time.
        data_bytes: encoded bytes of the images.
        read_bytes: encoded bytes that the whole run reads on all devices.
        memory_bytes: estimate per device.
        sharded_memory_bytes: the same with `pnl.sharded`; None for another method.
        classes: number of labels; that of LUPerson-NL if there is no data yet; None for a method without labels.
        kept: by which list the images were chosen, and of how many; None if they are all there are.
    """

    images: int | None
    steps_per_epoch: int | None
    steps: int | None
    batch_per_device: int
    part_per_device: int
    data_bytes: int | None
    read_bytes: int | None
    memory_bytes: int
    sharded_memory_bytes: int | None = None
    classes: int | None = None
    kept: KeptImages | None = None


def plan_pretraining(job: PretrainJob) -> PretrainPlan:
    """Count what a job will do, without writing anything.

    Raises:
        DataError: a pack is missing, damaged, or has nothing to train on or to probe with.
        UsageError: batch, groups and devices do not fit together, or an extra is missing.
        DeviceError: networks are to be compiled, and no compiler is here.
    """
    recipe = job.recipe
    processes = job.placement.processes
    parts = check_parts(recipe, job.placement)
    local = recipe.data.batch // processes
    if job.probe is not None:
        probed = open_pack(job.probe)
        check_answerable(probed.samples, same_camera=packed_same_camera(probed.record))
    if job.tensorboard:
        check_tensorboard()
    if recipe.net.compile:
        check_compiler(job.placement.kind)
    if job.start is not None:
        check_start(job.start, recipe, student_plan(recipe))
    packs = [open_pack(path) for path in job.packs]
    choice = choose_rows(recipe, packs) if packs else Choice(np.empty(0, np.int64))
    rows = choice.rows
    classes = None
    if uses_labels(recipe.settings):
        classes = int(number_labels(packs, rows).max()) + 1 if packs else LUPERSON_NL_LABELS
    if classes is not None and is_sharded(recipe) and classes < processes:
        raise UsageError(
            f"pnl.sharded: {classes} labels cannot be spread over {processes} processes; each needs one or more",
            hint="--set pnl.sharded=false",
        )
    memory, sharded_memory = (
        estimate_device(recipe, job.placement.kind, processes=processes, classes=classes or 0, sharded=sharded)
        for sharded in (is_sharded(recipe), True)
    )
    kept = sharded_memory if classes is not None and recipe.method == "pnl" else None
    if not packs:
        return PretrainPlan(None, None, None, local, local // parts, None, None, memory, kept, classes)
    shares, groups = processes * recipe.optim.accumulate, recipe.bn_groups
    order = ShuffledOrder(len(rows), batch=recipe.data.batch, seed=recipe.seed, groups=groups, shares=shares)
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
        sharded_memory_bytes=kept,
        classes=classes,
        kept=choice.kept,
    )


def estimate_device(
    recipe: PretrainRecipe, kind: str, *, processes: int, classes: int, sharded: bool | None = None
) -> int:
    """Bytes on one device, as `estimate_memory`.

    Args:
        recipe: resolved.
        kind: of the devices, cpu or cuda.
        processes: devices that fit the recipe.
        classes: number of labels; 0 for a method without.
        sharded: None for what the recipe says.
    """
    return estimate_memory(
        recipe,
        student_plan(recipe),
        processes=processes,
        parts=count_parts(recipe, kind, processes=processes),
        is_half=expect_precision(recipe.precision, kind) == torch.bfloat16,
        classes=classes,
        sharded=is_sharded(recipe) if sharded is None else sharded,
    )


def describe_setup(job: PretrainJob) -> dict[str, Any]:
    """What may not change while a run is continued: its recipe, and the fingerprints of its inputs."""
    packs = [open_pack(path) for path in job.packs]
    inputs: dict[str, Any] = {}
    choice = choose_rows(job.recipe, packs) if packs else None
    # Before the packs: their fingerprints say less of what has changed.
    if choice is not None and uses_labels(job.recipe.settings):
        inputs["classes"] = int(number_labels(packs, choice.rows).max()) + 1
    if choice is not None and choice.kept is not None:
        inputs |= {f"list:{kept.path}": kept.fingerprint for kept in choice.kept.lists}
    inputs |= {f"pack:{pack.dataset}": pack.fingerprint for pack in packs}
    inputs |= {} if job.start is None else {"start": file_fingerprint(job.start)}
    return {"recipe": recipe_tables(job.recipe), "inputs": inputs}


def check_parts(recipe: PretrainRecipe, placement: Placement) -> int:
    """The parts of a device's share of a batch, after refusing devices that cannot share the batch and its groups.

    Groups that span devices synchronise batch norm, as DINO's published code does; keys of a queue would then be
    shuffled for nothing. Without batch norm, groups are only the parts of a CPU.

    Raises:
        UsageError: batch, groups and devices do not fit together.
    """
    batch, processes = recipe.data.batch, placement.processes
    spanning = isinstance(recipe.settings, DinoSettings)
    groups = recipe.bn_groups if recipe.has_batch_norm or not spanning else processes * recipe.optim.accumulate
    check_split(batch, groups, processes, spanning=spanning)
    parts = count_parts(recipe, placement.kind, processes=processes)
    if recipe.has_batch_norm or not spanning:
        check_split(batch, groups, processes, parts=parts, spanning=spanning)
    if batch // processes % parts:
        raise UsageError(
            f"a share of {batch // processes} images does not divide into optim.accumulate = {parts} equal parts",
            hint=f"--set optim.accumulate={math.gcd(batch // processes, parts)}",
        )
    return parts


def count_parts(recipe: PretrainRecipe, kind: str, *, processes: int) -> int:
    """Number of parts that a device's share of a batch is cut into, processed one after the other.

    On a CPU every batch-norm group is a part. Networks run faster on a batch that fits the caches, and their rounding
    depends on the batch size: this way they see the same batches however the groups are spread over processes.

    Args:
        recipe: gives the batch-norm groups, and `optim.accumulate` on a GPU.
        kind: of the devices, cpu or cuda.
        processes: of the whole job.
    """
    return max(recipe.bn_groups // processes, 1) if kind == "cpu" else recipe.optim.accumulate


def threads_of(job: PretrainJob) -> int | None:
    """Threads of each process on a CPU; None to leave them unchanged.

    The number that a batch-norm group would have in its own process, because the rounding of convolutions also depends
    on their threads.
    """
    return pick_threads(job.placement, shares=max(job.recipe.bn_groups, job.local_processes))


def is_sharded(recipe: PretrainRecipe) -> bool:
    """Whether every process has some rows of the classifier and of the prototypes."""
    return isinstance(recipe.settings, PnlSettings) and recipe.settings.sharded and recipe.settings.classifies


def choose_rows(recipe: PretrainRecipe, packs: list[Pack]) -> Choice:
    """Rows of the concatenated packs that a recipe's method trains on, and the list that chose them, if one did.

    Raises:
        DataError: there are none, they lack the labels that the method needs, or there is something wrong with the
            scores or the list by which the best are to be kept.
        UsageError: a list that does not go with the packs.
    """
    labelled = uses_labels(recipe.settings)
    rows = labelled_rows(packs, recipe.method) if labelled else trainable_rows(packs)
    choice = keep_best(packs, rows, keep=recipe.data.keep, scores=recipe.data.scores)
    if labelled:
        check_labels(packs, choice.rows, recipe.method)
    return choice


def student_plan(recipe: PretrainRecipe) -> NetworkPlan:
    """What a checkpoint keeps of the network that a recipe's method trains."""
    net = recipe.net
    settings: MethodSettings = recipe.settings
    trunk = plan_trunk(net, recipe.pixels, vit=recipe.vit, swin=recipe.swin)
    match settings:
        case PnlSettings() if not (settings.contrasts or settings.has_prototypes):
            return NetworkPlan(trunk=trunk, pooling=net.pooling, head=NoHead(kind="none"))
        case DinoSettings():
            return NetworkPlan(trunk=trunk, pooling=net.pooling, head=NoHead(kind="none"))
        case MocoSettings() | PnlSettings() | SimclrSettings() | SupconSettings():
            head = ProjectionHead(kind="projection", outputs=settings.dim)
            return NetworkPlan(trunk=trunk, pooling=net.pooling, head=head)
