"""The loop of fine-tuning, as one process runs it."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import torch

from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.network import (
    build_started,
    draw_depth,
    evaluate_network,
    finish_run,
    freeze_parts,
    prepare_network,
)
from lupctl.core.stages.finetune.scores import best_on_test, describe_best, gather_scores
from lupctl.core.stages.finetune.setup import Setup, set_up
from lupctl.core.stages.finetune.supervision import PersonLabels, Supervision
from lupctl.core.stages.finetune.teacher import Teacher
from lupctl.core.stages.finetune.unlabelled.clusters import ClusterLabels
from lupctl.core.system.jobs.messages import agree_to_stop, rank
from lupctl.core.system.jobs.precision import name_precision
from lupctl.core.system.jobs.stopping import stop_on_request
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.clipping import clip_gradients
from lupctl.core.training.engine.curves import RateCurve
from lupctl.core.training.engine.freezing import frozen_steps
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.groups import set_rates
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.parts import share_statistics
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.engine.state import pack_state, restore_state
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.views.pixels import make_view

# What the labels of a run add to the state that is saved.
LABELS: Final = "labels"


def train_job(job: FinetuneJob, precision: torch.dtype | None = None) -> None:
    """The training loop of one process, in passes of this type; None for what a new run would take here."""
    recipe, folder = job.recipe, RunFolder(job.run)
    progress = Progress(quiet=job.quiet or rank() > 0)
    setup = set_up(job, precision)
    device, epochs, total, train = setup.device, setup.epochs, setup.epochs.total, setup.train

    torch.manual_seed(recipe.seed)
    cameras = () if setup.table is None else setup.table.cameras
    network = build_started(job, len(train.persons), progress, cameras)
    prepare_network(network, recipe, device, groups=recipe.bn_groups)
    optimizer = build_optimizer([network], **recipe.optim.model_dump(exclude={"clip", "clip_scope"}))
    schedule = RateCurve(lr=recipe.optim.lr, steps=epochs, **recipe.schedule.model_dump())
    start, damaged = restore_state(folder, network, optimizer)
    thaw = frozen_steps(recipe.freeze_epochs, epochs)

    log = open_log(job, setup, start=start, damaged=damaged, progress=progress)
    labels = supervise(job, setup, network, log, start=start, progress=progress)
    scores: dict[str, dict[str, float]] = {}
    writer = StateWriter(folder)
    with (
        closing(writer),
        closing(log),
        closing(labels),
        stop_on_request() as stop,
        progress.task("fine-tuning", total=total, unit="steps", done=start) as bar,
    ):
        for step in range(start, total):
            if step == start or step in setup.epochs.begins:
                labels.begin(step)
            log.meter.wait()
            batch = labels.take()
            log.meter.work()
            log.note_damage(batch.damaged)
            if step in (start, thaw):
                freeze_parts(network, recipe, is_early=step < thaw)
                gradients = SharedGradients(network)
            rate = schedule.at(step)
            set_rates(optimizer, rate=schedule, step=step, decay=recipe.optim.weight_decay)
            pixels = make_view(setup.view, batch.pixels, batch.views[0])
            draw_depth(network, recipe, batch.keys, step=step)
            optimizer.zero_grad(set_to_none=True)
            with gradients.part(0):
                parts = labels.measure(pixels, batch, gradients)
                parts["loss"].backward()  # type: ignore[no-untyped-call]
            share_statistics(network)
            clip_gradients(network.parameters(), recipe.optim.clip, scope=recipe.optim.clip_scope)
            optimizer.step()
            labels.follow()
            log.add(**parts)

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving = epochs.is_due(done, recipe.saving.every_epochs) and done < total
            evaluating = epochs.is_due(done, recipe.evaluation.every_epochs) or done == total
            log.write_step(done, rate=rate, is_due=saving or stopping, bar=bar)
            writer.poll()
            if saving or stopping or (evaluating and setup.tests) or done == total:
                log.check_weights(network, done=done, rate=rate)
                log.share_damage()
            for pack in setup.tests if rank() == 0 and evaluating else []:
                found = evaluate_network(network, recipe, pack, setup)
                scores[pack.dataset] = found
                log.write_scores(done, found, dataset=pack.dataset if len(setup.packs) > 1 else None)
            if rank() == 0 and (saving or stopping):
                state = pack_state(done, network, optimizer, precision=setup.precision, damaged=log.damaged)
                writer.save(state | ({LABELS: kept} if (kept := labels.state()) else {}))
            if stopping:
                writer.join()
                show_labels(labels, done)
                raise stop.error(done, total)
        more = labels.finish()
        writer.join()
    if rank() == 0:
        facts: dict[str, Any] = {**more, **show_labels(labels, total), **gather_scores(setup.packs, scores)}
        write_results(job, network, setup, log, facts, progress=progress)


def write_results(
    job: FinetuneJob,
    network: Classifying,
    setup: Setup,
    log: LoopLog,
    found: Mapping[str, Any],
    *,
    progress: Progress,
) -> None:
    """The checkpoint and the facts of a finished run, in process 0; says its best scores along the way.

    Args:
        job: that is done.
        network: as it is now.
        setup: the data and the precision.
        log: the last losses, and the images that were skipped.
        found: what else belongs into the facts.
        progress: gets the line.
    """
    counts = {"steps": setup.epochs.total, "images": setup.train.num_images, "persons": len(setup.train.persons)}
    counts |= {"damaged": len(log.damaged)}
    best = best_on_test(read_metrics(job.run), setup.packs[0].dataset)
    facts = {"precision": name_precision(setup.precision), **counts, **log.values, **best, **found}
    finish_run(job, network, setup.packs, setup.train, facts)
    for one in best.values():
        progress.say(describe_best(one))


def show_labels(labels: Supervision, done: int) -> dict[str, str]:
    """Writes the page of what was taken for labels, in process 0; what `run.json` says of it, nothing without one."""
    page = labels.show(done) if rank() == 0 else None
    return {} if page is None else {"page": page.name}


def supervise(
    job: FinetuneJob, setup: Setup, network: Classifying, log: LoopLog, *, start: int, progress: Progress
) -> Supervision:
    """The labels of a run that begins or continues at step `start`."""
    if job.recipe.labels == "persons":
        teacher = None
        if job.teacher is not None:
            teacher = Teacher(job.teacher, setup.view, device=setup.device, precision=setup.precision)
        return PersonLabels(setup, job.recipe, network, start=start, teacher=teacher)
    state = RunFolder(job.run).load_state() if start else None
    kept = {} if state is None else state[LABELS]
    return ClusterLabels(setup, job.recipe, network, kept=kept, log=log, progress=progress)


def open_log(job: FinetuneJob, setup: Setup, *, start: int, damaged: tuple[str, ...], progress: Progress) -> LoopLog:
    """The metrics and lines of the run, from step `start` on."""
    return LoopLog(
        RunFolder(job.run),
        start=start,
        total=setup.epochs.total,
        batch=job.recipe.data.persons * job.recipe.data.images,
        epochs=setup.epochs,
        is_writer=rank() == 0,
        progress=progress,
        damaged=damaged,
        precision=setup.precision,
        board=Board(job.run, step=start) if job.tensorboard and rank() == 0 else None,
    )
