"""Fine-tuning: from a labelled pack and a start to a re-id network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import ROLE_CODES
from lupctl.core.device import Placement, autocast, pick_precision
from lupctl.core.dist import (
    agree_to_stop,
    average_,
    check_split,
    gather_plain,
    gather_with_gradient,
    launch,
    own_device,
    rank,
    world_size,
)
from lupctl.core.errors import DataError
from lupctl.core.formats.checkpoint import load_strictly, pack_story, read_checkpoint, write_checkpoint
from lupctl.core.formats.pack import Pack, open_pack
from lupctl.core.formats.samples import Samples
from lupctl.core.loading.loaders import PackImages, StepDataset, default_workers, open_loader
from lupctl.core.loading.samplers import PersonsImagesOrder
from lupctl.core.loading.transform import make_view
from lupctl.core.loading.views import build_view_plan
from lupctl.core.losses.identity import smoothed_cross_entropy
from lupctl.core.losses.triplet import batch_hard_triplet
from lupctl.core.nets.build import NetworkPlan, build_reid
from lupctl.core.nets.estimate import activation_bytes, parameter_bytes
from lupctl.core.nets.networks import ReidNetwork
from lupctl.core.nets.norms import set_norm_groups
from lupctl.core.nets.published import imagenet_trunk
from lupctl.core.progress import Progress
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.retrieval.answerable import check_answerable
from lupctl.core.retrieval.extract import Encoder, extract_features
from lupctl.core.retrieval.score import score
from lupctl.core.train.meters import LoopMeter, Means, check_finite, report_damage
from lupctl.core.train.optim import Schedule, build_optimizer, set_rate
from lupctl.core.train.runs import Metrics, RunFolder
from lupctl.core.train.state import begin_run, clip_gradients, is_due, pack_state, restore_state
from lupctl.core.train.stopping import noticing_stop

LOG_EVERY_STEPS = 10
EVALUATION_CHUNK = 128


@dataclass(frozen=True)
class FinetuneJob:
    """One command's worth of fine-tuning.

    Args:
        recipe: resolved; `recipe.start` is imagenet, scratch, or what the user called the checkpoint `start`.
        pack: the labelled data.
        start: checkpoint the trunk begins from; None with imagenet and scratch.
        run: the run's folder.
        placement: devices.
        workers: decoding processes per device; None picks.
        command: the command line, for the record.
        force: start over where a run lies already.
        quiet: no lines, no bars.
    """

    recipe: FinetuneRecipe
    pack: Path
    start: Path | None
    run: Path
    placement: Placement
    workers: int | None
    command: tuple[str, ...]
    force: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class FinetunePlan:
    """What a job will do.

    Args:
        images, persons: of the training set.
        steps_per_epoch, steps: optimizer updates.
        batch_per_device: images.
        memory_bytes: estimate per device: network, gradient, optimizer and activations in float32.
        queries: valid queries of the evaluation, 0 when the pack has none.
    """

    images: int
    persons: int
    steps_per_epoch: int
    steps: int
    batch_per_device: int
    memory_bytes: int
    queries: int


def plan_finetuning(job: FinetuneJob) -> FinetunePlan:
    """Counts what a job will do, without touching anything.

    Raises:
        DataError: the pack is missing, damaged, unlabelled, or its query set cannot be scored.
        UsageError: batch, groups and devices do not fit together.
    """
    recipe = job.recipe
    batch = recipe.data.persons * recipe.data.images
    check_split(batch, recipe.bn_groups, job.placement.processes)
    pack = open_pack(job.pack)
    rows, label, persons = training_rows(pack)
    order = build_order(recipe, label)
    net = network_plan(recipe, len(persons))
    local = batch // job.placement.processes
    activations = activation_bytes(net, height=recipe.pixels.height, width=recipe.pixels.width)
    return FinetunePlan(
        images=len(rows),
        persons=len(persons),
        steps_per_epoch=order.steps_per_epoch,
        steps=order.steps_per_epoch * recipe.schedule.epochs,
        batch_per_device=local,
        memory_bytes=4 * parameter_bytes(net) + local * activations,
        queries=check_answerable(pack.samples).valid if has_queries(pack.samples) else 0,
    )


def finetune(job: FinetuneJob, progress: Progress) -> dict[str, Any]:
    """Runs, or continues, a job until its checkpoint is written and evaluated.

    Returns:
        the run's facts, as `run.json` holds them, with the scores under `scores`.

    Raises:
        UsageError: the folder holds a run with another recipe, or is in use.
        DataError: the data or the start cannot be used, or the loss is no number any more.
        FormatError: the start does not fit the network.
        StoppedError: a request to stop; the state is saved.
    """
    folder = RunFolder(job.run)
    plan = plan_finetuning(job)  # everything that can be refused is refused before a process starts
    if plan.queries == 0:
        progress.say(f"{job.pack}: no queries; the run will not be evaluated")
    with folder.held():
        story = {"recipe": job.recipe.model_dump(mode="json"), "inputs": input_fingerprints(job)}
        if begin_run(folder, story, dump_recipe(job.recipe), force=job.force, progress=progress):
            launch(train_job, job, processes=job.placement.processes, kind=job.placement.kind)
    return folder.read_facts()


def train_job(job: FinetuneJob) -> None:
    """The training loop of one process."""
    recipe, folder = job.recipe, RunFolder(job.run)
    device = own_device(job.placement.kind)
    progress = Progress(quiet=job.quiet or rank() > 0)
    pack = open_pack(job.pack)
    rows, label, persons = training_rows(pack)
    order = build_order(recipe, label)
    total = order.steps_per_epoch * recipe.schedule.epochs
    view = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())

    torch.manual_seed(recipe.seed)
    network = build_started(job, len(persons), progress).to(device).train()
    set_norm_groups(network, recipe.bn_groups // world_size())
    optimizer = build_optimizer(
        network.parameters(),
        name=recipe.optim.name,
        lr=recipe.optim.lr,
        momentum=recipe.optim.momentum,
        weight_decay=recipe.optim.weight_decay,
    )
    schedule = Schedule(lr=recipe.optim.lr, steps_per_epoch=order.steps_per_epoch, **recipe.schedule.model_dump())
    start = restore_state(folder, network, optimizer)
    kind = pick_precision(recipe.precision, device)

    dataset = StepDataset(
        PackImages([pack], rows), order, (view,), seed=recipe.seed, rank=rank(), processes=world_size()
    )
    workers = default_workers(device) if job.workers is None else job.workers
    batches = open_loader(dataset, range(start, total), workers=workers, pin=device.type == "cuda")
    label_of = torch.from_numpy(label).to(device)
    metrics = Metrics(job.run, step=start) if rank() == 0 else None
    meter, means, damaged = LoopMeter(recipe.data.persons * recipe.data.images), Means(), 0
    values: dict[str, float] = {}

    with noticing_stop() as stop, progress.task("fine-tuning", total=total, unit="steps", done=start) as bar:
        for step in range(start, total):
            meter.wait()
            batch = next(batches).to(device)
            meter.work()
            damaged += report_damage(batch.damaged, progress)
            target = label_of[batch.rows]
            rate = schedule.rate(step)
            set_rate(optimizer, rate)
            with autocast(device, kind):
                features, logits = network(make_view(view, batch.pixels, batch.views[0]))
            parts = reid_losses(recipe, features, logits, target)
            loss = recipe.losses.identity * parts["identity"] + recipe.losses.triplet * parts["triplet"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            average_([p.grad for p in network.parameters() if p.grad is not None])
            clip_gradients(network, recipe.optim.clip)
            optimizer.step()
            means.add(loss=loss, **parts, accuracy=(logits.argmax(1) == target).float().mean())
            meter.step()

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving = is_due(done, order.steps_per_epoch, recipe.saving.every_epochs) and done < total
            evaluating = is_due(done, order.steps_per_epoch, recipe.evaluation.every_epochs) and done < total
            if done % LOG_EVERY_STEPS == 0 or done == total or saving or stopping:
                values = means.read()
                check_finite(values, step=done, rate=rate, last_good=folder.describe_last_good())
                row = {"step": done, "epoch": step // order.steps_per_epoch, **values, "lr": rate, **meter.read()}
                if metrics is not None:
                    metrics.write(row)
                bar.advance(0, note=f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.0%}, lr {rate:.2g}")
            bar.advance()
            if saving or stopping or evaluating:
                average_([value for value in network.buffers() if value.is_floating_point()])
            if evaluating and metrics is not None and has_queries(pack.samples):
                scores = evaluate_network(network, recipe, pack, device=device, kind=kind, workers=workers)
                metrics.write({"step": done, "epoch": step // order.steps_per_epoch, **scores})
                progress.say(
                    f"epoch {done // order.steps_per_epoch}: mAP {scores['map']:.4f}, rank-1 {scores['rank1']:.4f}"
                )
            if rank() == 0 and (saving or stopping):
                folder.save_state(pack_state(done, network, optimizer))
            if stopping:
                raise stop.error(done, total)
    average_([value for value in network.buffers() if value.is_floating_point()])
    if metrics is not None:
        scores = {}
        if has_queries(pack.samples):
            scores = evaluate_network(network, recipe, pack, device=device, kind=kind, workers=workers)
            metrics.write({"step": total, "epoch": recipe.schedule.epochs - 1, **scores})
        metrics.close()
        results = {"steps": total, "images": len(rows), "damaged": damaged, **values, "scores": scores}
        finish_run(job, network, pack, persons, results)


def reid_losses(recipe: FinetuneRecipe, features: Tensor, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Identity loss over this process's images and triplet loss against all processes' images."""
    triplet = batch_hard_triplet(
        features, target, gather_with_gradient(features.float()), gather_plain(target), margin=recipe.losses.margin
    )
    return {"identity": smoothed_cross_entropy(logits, target, recipe.losses.smoothing), "triplet": triplet}


def evaluate_network(
    network: ReidNetwork,
    recipe: FinetuneRecipe,
    pack: Pack,
    *,
    device: torch.device,
    kind: torch.dtype,
    workers: int,
) -> dict[str, float]:
    """mAP, official mAP, mINP and rank-1 of a network in training on the pack's queries; training mode is kept."""
    wanted = np.isin(pack.samples.role, [ROLE_CODES["query"], ROLE_CODES["gallery"]])
    rows = np.flatnonzero(wanted)
    network.eval()
    encoder = Encoder(network, build_view_plan(recipe.pixels.model_dump()), device, kind)
    features = extract_features(
        encoder,
        PackImages([pack], rows),
        chunk=EVALUATION_CHUNK,
        workers=workers,
        flip=False,
        progress=Progress(quiet=True),
    )
    network.train()
    scores = score(features, pack.samples.select(rows), device=device).scores
    return {"map": scores.map, "map_official": scores.map_official, "minp": scores.minp, "rank1": scores.cmc[1]}


def build_started(job: FinetuneJob, num_classes: int, progress: Progress) -> ReidNetwork:
    """The network with its trunk where the recipe says it starts.

    Raises:
        FormatError: the start's trunk does not fit.
    """
    network = build_reid(network_plan(job.recipe, num_classes))
    if job.start is not None:
        checkpoint = read_checkpoint(job.start)
        trunk = {
            key.removeprefix("backbone."): value
            for key, value in checkpoint.tensors.items()
            if key.startswith("backbone.")
        }
        count = load_strictly(network.backbone, trunk, origin=str(job.start))
        left = len(checkpoint.tensors) - len(trunk)
        progress.say(f"start: {count} trunk tensors from {job.start}; {left} of its head left behind, new head")
    elif job.recipe.start == "imagenet":
        trunk = imagenet_trunk(job.recipe.net.arch, progress=not job.quiet)
        count = load_strictly(network.backbone, trunk, origin="ImageNet weights")
        progress.say(f"start: {count} trunk tensors from torchvision's ImageNet weights; new head")
    else:
        progress.say("start: random weights")
    return network


def finish_run(
    job: FinetuneJob, network: ReidNetwork, pack: Pack, persons: NDArray[np.int64], results: dict[str, Any]
) -> None:
    """Writes the checkpoint and marks the run as finished."""
    folder = RunFolder(job.run)
    parents = input_fingerprints(job)
    header = {
        "stage": "finetune",
        "command": list(job.command),
        "recipe": job.recipe.model_dump(mode="json"),
        "network": network_plan(job.recipe, len(persons)).to_json(),
        "preprocessing": job.recipe.pixels.model_dump(mode="json"),
        "classes": persons.tolist(),
        "parents": parents,
        "data": [pack_story(pack)],
    }
    write_checkpoint(folder.checkpoint, network.state_dict(), header)
    facts = {"command": "finetune", "arch": job.recipe.net.arch, "start": job.recipe.start, "dataset": pack.dataset}
    paths = {"pack": str(job.pack.resolve()), "checkpoint": str(folder.checkpoint)}
    folder.write_facts({**facts, **paths, "parents": parents, **results})
    folder.resume.unlink(missing_ok=True)


def input_fingerprints(job: FinetuneJob) -> dict[str, str]:
    """What the run is made from."""
    pack = open_pack(job.pack)
    inputs = {f"pack:{pack.dataset}": pack.fingerprint}
    if job.start is not None:
        inputs["start"] = read_checkpoint(job.start).fingerprint
    return inputs


def training_rows(pack: Pack) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The training images of a pack, their classes 0 to C - 1, and the person of each class.

    Raises:
        DataError: there are no labelled training images, or all are of one person.
    """
    rows = np.flatnonzero((pack.samples.role == ROLE_CODES["train"]) & (pack.samples.person >= 0))
    persons, label = np.unique(pack.samples.person[rows], return_inverse=True)
    if len(persons) < 2:
        raise DataError(
            f"{pack.path}: {len(rows)} labelled training images of {len(persons)} persons; expected two or more",
            hint=f"lupctl data info {pack.path} shows the roles",
        )
    return rows, label.astype(np.int64), persons


def build_order(recipe: FinetuneRecipe, label: NDArray[np.int64]) -> PersonsImagesOrder:
    """The batches a recipe describes."""
    return PersonsImagesOrder(label, persons=recipe.data.persons, images=recipe.data.images, seed=recipe.seed)


def network_plan(recipe: FinetuneRecipe, num_classes: int) -> NetworkPlan:
    """The network a recipe describes."""
    net = recipe.net
    return NetworkPlan(net.arch, net.width, net.last_stride, net.pooling, head="bnneck", outputs=num_classes)


def has_queries(samples: Samples) -> bool:
    """Whether there is anything to evaluate."""
    return bool((samples.role == ROLE_CODES["query"]).any())
