"""The loop of pre-training in one process."""

from contextlib import closing
from typing import Any

import torch

from lupctl.core.formats.weights.file import pack_reference
from lupctl.core.stages.pretrain.finish import finish_run
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.labels import label_history
from lupctl.core.stages.pretrain.probe import open_probes, probe_backbone
from lupctl.core.stages.pretrain.setup import build_trained, open_batches, set_up
from lupctl.core.stages.pretrain.starts.load import begin_from
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.stages.pretrain.watch import Watch, sum_up
from lupctl.core.system.jobs.messages import agree_to_stop, rank
from lupctl.core.system.jobs.precision import name_precision
from lupctl.core.system.jobs.stopping import stop_on_request
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.engine.state import pack_state, restore_state
from lupctl.core.training.loading.prefetch import on_device
from lupctl.core.training.methods.solider import Solider


def train_job(job: PretrainJob, precision: torch.dtype | None = None) -> None:
    """The training loop of one process, in passes of this type; None for what a new run would take here."""
    recipe, folder = job.recipe, RunFolder(job.run)
    progress = Progress(quiet=job.quiet or rank() > 0)
    setup = set_up(job, precision)
    device, total = setup.device, setup.total
    epochs = setup.order.epochs(recipe.schedule.epochs)
    trained = build_trained(recipe, setup)
    method, optimizer = trained.method, trained.optimizer
    start, damaged = restore_state(folder, method, optimizer)
    parents = begin_from(job.start, method, done=start, progress=progress) if isinstance(method, Solider) else {}

    batches = on_device(open_batches(setup, range(start, total), seed=recipe.seed), device)
    # Read now, so that a pack that disappears during the run does not spoil its results.
    data = [pack_reference(pack) for pack in setup.packs] if rank() == 0 else []
    writer = StateWriter(folder)
    log = LoopLog(
        folder,
        start=start,
        total=total,
        batch=recipe.data.batch,
        epochs=epochs,
        is_writer=rank() == 0,
        progress=progress,
        damaged=damaged,
        precision=setup.precision,
        board=Board(job.run, step=start) if job.tensorboard and rank() == 0 else None,
    )
    watch = Watch(recipe, epochs, rows=read_metrics(job.run) if rank() == 0 else (), start=start)
    probes, seen = open_probes(setup, job.probe, seed=recipe.seed), dict[str, float]()
    with (
        closing(writer),
        closing(log),
        stop_on_request() as stop,
        progress.task("pre-training", total=total, unit="steps", done=start) as bar,
    ):
        if start == 0:  # the baseline for the training
            log.write_probe(0, probe_backbone(method.kept, recipe, setup, probes))
        for step in range(start, total):
            log.meter.wait()
            batch = next(batches)
            log.meter.work()
            log.note_damage(batch.damaged)
            now = trained.curves.now(step)
            log.add(**watch.keep(take_step(recipe, setup, trained, batch, now)))

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving, probing = watch.is_saving_due(done), watch.is_probing_due(done)
            log.write_step(done, rate=now.rate, is_due=saving or stopping, bar=bar, more=watch.read)
            writer.poll()
            if error := watch.find_error(done, log, progress=progress):
                writer.join()
                raise error
            if saving or stopping or done == total:
                log.check_weights(method.student, done=done, rate=now.rate)
                log.share_damage()
            if probing:
                seen = probe_backbone(method.kept, recipe, setup, probes)
                log.write_probe(done, seen)
            if (saving or stopping) and not watch.keeps_saved:
                # In every process, because shards are gathered.
                state = pack_state(done, method, optimizer, precision=setup.precision, damaged=log.damaged)
                watch.saved = done
                if rank() == 0:
                    writer.save(state)
            if stopping:
                writer.join()
                raise stop.error(watch.saved, total)
        writer.join()
    tensors = method.state_dict()  # in every process, too
    if rank() == 0:
        rows = read_metrics(job.run)
        history = label_history(rows)
        results: dict[str, Any] = {"steps": total, "images": len(setup.images), "damaged": len(log.damaged)}
        results |= {"precision": name_precision(setup.precision), **log.values, **sum_up(rows), **seen}
        results |= {"labels": history} if history else {}
        finish_run(job, tensors, method.kept, data=data, chosen=setup.kept, start=parents, results=results)
