"""Pre-training: from packs of unlabelled persons to a backbone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.device import Placement, autocast, pick_precision
from lupctl.core.dist import agree_to_stop, average_, check_split, launch, own_device, rank, world_size
from lupctl.core.errors import DataError
from lupctl.core.formats.checkpoint import pack_story, write_checkpoint
from lupctl.core.formats.pack import Pack, open_pack
from lupctl.core.loading.loaders import PackImages, StepDataset, default_workers, open_loader
from lupctl.core.loading.samplers import ShuffledOrder
from lupctl.core.loading.transform import make_view
from lupctl.core.loading.views import build_view_plan
from lupctl.core.methods.moco import MoCo
from lupctl.core.nets.build import NetworkPlan, build_contrastive
from lupctl.core.nets.estimate import activation_bytes, parameter_bytes
from lupctl.core.nets.norms import set_norm_groups
from lupctl.core.progress import Progress
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.train.meters import LoopMeter, Means, check_finite, report_damage
from lupctl.core.train.optim import Schedule, build_optimizer, set_rate
from lupctl.core.train.runs import Metrics, RunFolder
from lupctl.core.train.state import begin_run, clip_gradients, is_due, pack_state, restore_state
from lupctl.core.train.stopping import noticing_stop

LOG_EVERY_STEPS = 10


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


def pretrain(job: PretrainJob, progress: Progress) -> dict[str, Any]:
    """Runs, or continues, a job until its checkpoint is written.

    Returns:
        the run's facts, as `run.json` holds them.

    Raises:
        UsageError: the folder holds a run with another recipe or of another command, or is in use.
        DataError: packs are missing or damaged, or the loss is no number any more.
        StoppedError: a request to stop; the state is saved.
    """
    folder = RunFolder(job.run)
    plan_pretraining(job)  # everything that can be refused is refused before a process starts
    with folder.held():
        inputs = {f"pack:{pack.dataset}": pack.fingerprint for pack in map(open_pack, job.packs)}
        story = {"recipe": job.recipe.model_dump(mode="json"), "inputs": inputs}
        if begin_run(folder, story, dump_recipe(job.recipe), force=job.force, progress=progress):
            launch(train_job, job, processes=job.placement.processes, kind=job.placement.kind)
    return folder.read_facts()


def train_job(job: PretrainJob) -> None:
    """The training loop of one process."""
    recipe, folder = job.recipe, RunFolder(job.run)
    device = own_device(job.placement.kind)
    progress = Progress(quiet=job.quiet or rank() > 0)
    packs = [open_pack(path) for path in job.packs]
    images = PackImages(packs, trainable_rows(packs))
    order = ShuffledOrder(len(images), batch=recipe.data.batch, seed=recipe.seed)
    total = order.steps_per_epoch * recipe.schedule.epochs
    view = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())

    torch.manual_seed(recipe.seed)
    method = build_method(recipe, device)
    optimizer = build_optimizer(
        method.encoder_q.parameters(),
        name=recipe.optim.name,
        lr=recipe.optim.lr,
        momentum=recipe.optim.momentum,
        weight_decay=recipe.optim.weight_decay,
    )
    schedule = build_schedule(recipe, order.steps_per_epoch)
    start = restore_state(folder, method, optimizer)
    kind = pick_precision(recipe.precision, device)

    dataset = StepDataset(images, order, (view, view), seed=recipe.seed, rank=rank(), processes=world_size())
    workers = default_workers(device) if job.workers is None else job.workers
    batches = open_loader(dataset, range(start, total), workers=workers, pin=device.type == "cuda")
    metrics = Metrics(job.run, step=start) if rank() == 0 else None
    meter, means, damaged, values = LoopMeter(recipe.data.batch), Means(), 0, {}

    def save(step: int) -> None:
        average_([value for value in method.buffers() if value.is_floating_point()])
        if rank() == 0:
            folder.save_state(pack_state(step, method, optimizer))

    with noticing_stop() as stop, progress.task("pre-training", total=total, unit="steps", done=start) as bar:
        for step in range(start, total):
            meter.wait()
            batch = next(batches).to(device)
            meter.work()
            damaged += report_damage(batch.damaged, progress)
            first, second = (make_view(view, batch.pixels, draws) for draws in batch.views)
            rate = schedule.rate(step)
            set_rate(optimizer, rate)
            with autocast(device, kind):
                loss, hits = method(first, second, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            average_([p.grad for p in method.encoder_q.parameters() if p.grad is not None])
            clip_gradients(method.encoder_q, recipe.optim.clip)
            optimizer.step()
            means.add(loss=loss, hits=hits)
            meter.step()

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device)
            saving = is_due(done, order.steps_per_epoch, recipe.saving.every_epochs) and done < total
            if done % LOG_EVERY_STEPS == 0 or done == total or saving or stopping:
                values = means.read()
                check_finite(values, step=done, rate=rate, last_good=folder.describe_last_good())
                row = {"step": done, "epoch": step // order.steps_per_epoch, **values, "lr": rate, **meter.read()}
                if metrics is not None:
                    metrics.write(row)
                bar.advance(0, note=f"loss {values['loss']:.3f}, lr {rate:.2g}, waiting {row['data_wait']:.0%}")
            bar.advance()
            if saving or (stopping and done < total):
                save(done)
            if stopping and done < total:
                raise stop.error(done, total)
    if metrics is not None:
        metrics.close()
    average_([value for value in method.buffers() if value.is_floating_point()])
    if rank() == 0:
        finish_run(job, method, packs, {"steps": total, "images": len(images), "damaged": damaged, **values})


def finish_run(job: PretrainJob, method: MoCo, packs: list[Pack], results: dict[str, Any]) -> None:
    """Writes the checkpoint and marks the run as finished."""
    folder = RunFolder(job.run)
    parents = {f"pack:{pack.dataset}": pack.fingerprint for pack in packs}
    header = {
        "stage": "pretrain",
        "command": list(job.command),
        "recipe": job.recipe.model_dump(mode="json"),
        "network": network_plan(job.recipe).to_json(),
        "preprocessing": job.recipe.pixels.model_dump(mode="json"),
        "classes": None,
        "parents": parents,
        "data": [pack_story(pack) for pack in packs],
    }
    write_checkpoint(folder.checkpoint, method.encoder_q.state_dict(), header)
    folder.write_facts(
        {
            "command": "pretrain",
            "method": job.recipe.method,
            "arch": job.recipe.net.arch,
            "packs": [pack.dataset for pack in packs],
            "checkpoint": str(folder.checkpoint),
            "parents": parents,
            **results,
        }
    )
    folder.resume.unlink(missing_ok=True)


def build_method(recipe: PretrainRecipe, device: torch.device) -> MoCo:
    """The method with its networks on the device, batch-norm groups set for this process's share."""
    method = MoCo(
        build_contrastive(network_plan(recipe)),
        dim=recipe.moco.dim,
        queue=recipe.moco.queue,
        momentum=recipe.moco.momentum,
        temperature=recipe.moco.temperature,
        seed=recipe.seed,
    ).to(device)
    set_norm_groups(method, recipe.bn_groups // world_size())
    return method.train()


def network_plan(recipe: PretrainRecipe) -> NetworkPlan:
    """The network a recipe describes."""
    net = recipe.net
    return NetworkPlan(net.arch, net.width, net.last_stride, net.pooling, head="projection", outputs=recipe.moco.dim)


def build_schedule(recipe: PretrainRecipe, steps_per_epoch: int) -> Schedule:
    """The learning rate a recipe describes."""
    return Schedule(lr=recipe.optim.lr, steps_per_epoch=steps_per_epoch, **recipe.schedule.model_dump())


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
