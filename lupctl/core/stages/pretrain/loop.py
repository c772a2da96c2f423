"""The loop of pre-training, as one process runs it."""

from contextlib import closing

import torch
from torch import Tensor

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import pack_story
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.finish import finish_run
from lupctl.core.stages.pretrain.job import PretrainJob, count_parts, network_plan
from lupctl.core.stages.pretrain.probe import probe_backbone
from lupctl.core.stages.pretrain.setup import open_batches, set_up
from lupctl.core.system.jobs.device import autocast
from lupctl.core.system.jobs.messages import agree_to_stop, rank, world_size
from lupctl.core.system.jobs.stopping import noticing_stop
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.optim import Schedule, build_optimizer, set_rate
from lupctl.core.training.engine.parts import each_part, recompute_blocks
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.engine.state import clip_gradients, is_due, pack_state, restore_state
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.loading.prefetch import on_device
from lupctl.core.training.methods.moco import MoCo, MocoStep
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.views.pixels import make_view


def train_job(job: PretrainJob) -> None:
    """The training loop of one process."""
    recipe, folder = job.recipe, RunFolder(job.run)
    progress = Progress(quiet=job.quiet or rank() > 0)
    setup = set_up(job)
    device, order, total = setup.device, setup.order, setup.total

    torch.manual_seed(recipe.seed)
    method = build_method(recipe, device)
    optimizer = build_optimizer(
        method.encoder_q.parameters(), **recipe.optim.model_dump(exclude={"clip", "accumulate"})
    )
    schedule = build_schedule(recipe, order.steps_per_epoch)
    start, damaged = restore_state(folder, method, optimizer)
    gradients = share_gradients(recipe, method)

    batches = on_device(open_batches(setup, range(start, total), seed=recipe.seed), device)
    # Read now: a pack that disappears during the run takes nothing of a finished one with it.
    data = [pack_story(pack) for pack in setup.packs] if rank() == 0 else []
    writer = StateWriter(folder)
    log = LoopLog(
        folder,
        start=start,
        total=total,
        batch=recipe.data.batch,
        steps_per_epoch=order.steps_per_epoch,
        is_writer=rank() == 0,
        progress=progress,
        damaged=damaged,
        board=Board(job.run, step=start) if job.tensorboard and rank() == 0 else None,
    )
    watched = None if job.probe is None else open_pack(job.probe)
    seen: dict[str, float] = {}
    with (
        closing(writer),
        closing(log),
        noticing_stop() as stop,
        progress.task("pre-training", total=total, unit="steps", done=start) as bar,
    ):
        if watched is not None and start == 0:  # what the training has to be better than
            log.write_probe(0, probe_backbone(method, recipe, setup, watched))
        for step in range(start, total):
            log.meter.wait()
            batch = next(batches)
            log.meter.work()
            log.note_damage(batch.damaged)
            first, second = (make_view(setup.view, batch.pixels, draws) for draws in batch.views)
            rate = schedule.rate(step)
            set_rate(optimizer, rate)
            loss, hits = learn(method, first, second, step, precision=setup.precision, gradients=gradients)
            clip_gradients(method.encoder_q, recipe.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            log.add(loss=loss, hits=hits)

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving = is_due(done, order.steps_per_epoch, recipe.saving.every_epochs) and done < total
            probing = is_due(done, order.steps_per_epoch, recipe.probe.every_epochs) or done == total
            log.write_step(done, rate=rate, is_due=saving or stopping, bar=bar)
            writer.poll()
            if saving or stopping or done == total:
                log.check_weights(method.encoder_q, done=done, rate=rate)
                log.share_damage()
            if watched is not None and probing:
                seen = probe_backbone(method, recipe, setup, watched)
                log.write_probe(done, seen)
            if rank() == 0 and (saving or stopping):
                writer.save(pack_state(done, method, optimizer, damaged=log.damaged))
            if stopping:
                writer.join()
                raise stop.error(done, total)
        writer.join()
    if rank() == 0:
        counts = {"steps": total, "images": len(setup.images), "damaged": len(log.damaged)}
        finish_run(job, method, data, {**counts, **log.values, **seen})


def learn(
    method: MoCo,
    first: Tensor,
    second: Tensor,
    step: int,
    *,
    precision: torch.dtype,
    gradients: SharedGradients,
    clock: Clock = untimed,
) -> MocoStep:
    """Forward and backward of one step, in parts one after the other; leaves shared gradients and a new queue.

    With parts, all queries face the same old queue and the keys enter it together, as if there were one part. What
    differs from one part is rounding alone, as long as every part holds whole batch-norm groups.

    Args:
        method: its gradients must be none.
        first, second: (b, 3, H, W), the two views of this process's share of the batch.
        step: keys the shuffling.
        precision: type of the forward pass.
        gradients: of the query encoder; says how many parts there are.
        clock: looks at keys, forward and backward.
    """
    with clock("keys"), autocast(first.device, precision):
        keys = method.encode_keys(second, step, parts=gradients.parts)
    found = []
    for number, some in enumerate(each_part(method.encoder_q, gradients.parts)):
        with gradients.part(number):
            with clock("forward"), autocast(first.device, precision):
                loss, hits = method.contrast(gradients(first[some]), keys.own[some], method.queue)
            with clock("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
        found.append(torch.stack([loss.detach(), hits]))
    method.enqueue(keys.every)
    return MocoStep(*torch.stack(found).mean(dim=0))


def build_method(recipe: PretrainRecipe, device: torch.device) -> MoCo:
    """The method with its networks on the device, batch-norm groups set for this process's share of a part."""
    method = MoCo(
        build_contrastive(network_plan(recipe)),
        dim=recipe.moco.dim,
        queue=recipe.moco.queue,
        momentum=recipe.moco.momentum,
        temperature=recipe.moco.temperature,
        seed=recipe.seed,
    ).to(device)
    groups = recipe.bn_groups // world_size() // count_parts(recipe, device.type, processes=world_size())
    set_norm_groups(method, groups)
    if device.type == "cuda" and groups == 1:
        # Convolutions on tensor cores want channels last. Several groups want images first: they are cut out of the
        # batch as channels, which costs a copy in any other order.
        for encoder in (method.encoder_q, method.encoder_k):
            encoder.to(memory_format=torch.channels_last)
    if recipe.net.checkpoint_activations:
        recompute_blocks(method.encoder_q.backbone.blocks())
    if recipe.net.compile:
        method.encoder_q.compile()
        method.encoder_k.compile()
    return method.train()


def share_gradients(recipe: PretrainRecipe, method: MoCo) -> SharedGradients:
    """The query encoder with its gradients shared among parts and processes."""
    kind = method.queue.device.type
    return SharedGradients(method.encoder_q, parts=count_parts(recipe, kind, processes=world_size()))


def build_schedule(recipe: PretrainRecipe, steps_per_epoch: int) -> Schedule:
    """The learning rate a recipe describes."""
    return Schedule(lr=recipe.optim.lr, steps_per_epoch=steps_per_epoch, **recipe.schedule.model_dump())
