"""The loop of pre-training in one process."""

from contextlib import closing

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import pack_reference
from lupctl.core.stages.pretrain.finish import finish_run
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.labels import label_history
from lupctl.core.stages.pretrain.probe import probe_backbone
from lupctl.core.stages.pretrain.setup import build_trained, open_batches, set_up
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.stages.pretrain.watch import Watch
from lupctl.core.system.jobs.messages import agree_to_stop, rank
from lupctl.core.system.jobs.stopping import stop_on_request
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.engine.state import pack_state, restore_state
from lupctl.core.training.loading.prefetch import on_device


def train_job(job: PretrainJob) -> None:
    """The training loop of one process."""
    recipe, folder = job.recipe, RunFolder(job.run)
    progress = Progress(quiet=job.quiet or rank() > 0)
    setup = set_up(job)
    device, total = setup.device, setup.total
    epochs = setup.order.epochs(recipe.schedule.epochs)
    trained = build_trained(recipe, setup)
    method, optimizer = trained.method, trained.optimizer
    start, damaged = restore_state(folder, method, optimizer)

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
        board=Board(job.run, step=start) if job.tensorboard and rank() == 0 else None,
    )
    watched = None if job.probe is None else open_pack(job.probe)
    outputs = recipe.dino.outputs if recipe.dino is not None else None
    watch, seen = Watch(outputs), dict[str, float]()
    with (
        closing(writer),
        closing(log),
        stop_on_request() as stop,
        progress.task("pre-training", total=total, unit="steps", done=start) as bar,
    ):
        if watched is not None and start == 0:  # the baseline for the training
            log.write_probe(0, probe_backbone(method.kept, recipe, setup, watched))
        for step in range(start, total):
            log.meter.wait()
            batch = next(batches)
            log.meter.work()
            log.note_damage(batch.damaged)
            now = trained.curves.now(step)
            log.add(**watch.keep(take_step(recipe, setup, trained, batch, now)))

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving = epochs.is_due(done, recipe.saving.every_epochs) and done < total
            probing = epochs.is_due(done, recipe.probe.every_epochs) or done == total
            log.write_step(done, rate=now.rate, is_due=saving or stopping, bar=bar, more=watch.read)
            writer.poll()
            if saving or stopping or done == total:
                log.check_weights(method.student, done=done, rate=now.rate)
                log.share_damage()
            if watched is not None and probing:
                seen = probe_backbone(method.kept, recipe, setup, watched)
                log.write_probe(done, seen)
            if saving or stopping:
                # In every process, because shards are gathered.
                state = pack_state(done, method, optimizer, damaged=log.damaged)
                if rank() == 0:
                    writer.save(state)
            if stopping:
                writer.join()
                raise stop.error(done, total)
        writer.join()
    tensors = method.state_dict()  # in every process, too
    if rank() == 0:
        history = label_history(read_metrics(job.run))
        counts = {"steps": total, "images": len(setup.images), "damaged": len(log.damaged)}
        results = {**counts, **log.values, **seen, **({"labels": history} if history else {})}
        finish_run(job, tensors, method.kept, data=data, chosen=setup.kept, results=results)
