"""The loop of pre-training, as one process runs it."""

from contextlib import closing
from typing import Any

import torch

from lupctl.core.device import autocast, pick_precision
from lupctl.core.dist import agree_to_stop, average_, own_device, rank, world_size
from lupctl.core.formats.checkpoint import pack_story, write_checkpoint
from lupctl.core.formats.pack import Pack, open_pack
from lupctl.core.loading.images import PackImages
from lupctl.core.loading.loaders import StepDataset, default_workers, open_loader
from lupctl.core.loading.samplers import ShuffledOrder
from lupctl.core.loading.transform import make_view
from lupctl.core.loading.views import build_view_plan
from lupctl.core.methods.moco import MoCo
from lupctl.core.nets.build import build_contrastive
from lupctl.core.nets.norms import set_norm_groups
from lupctl.core.progress import Progress
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.job import PretrainJob, network_plan, trainable_rows
from lupctl.core.train.log import LoopLog
from lupctl.core.train.optim import Schedule, build_optimizer, set_rate
from lupctl.core.train.runs import RunFolder
from lupctl.core.train.state import clip_gradients, is_due, pack_state, restore_state, running_statistics
from lupctl.core.train.stopping import noticing_stop


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
    optimizer = build_optimizer(method.encoder_q.parameters(), **recipe.optim.model_dump(exclude={"clip"}))
    schedule = build_schedule(recipe, order.steps_per_epoch)
    start, damaged = restore_state(folder, method, optimizer)
    kind = pick_precision(recipe.precision, device)

    dataset = StepDataset(images, order, (view, view), seed=recipe.seed, rank=rank(), processes=world_size())
    workers = default_workers(device) if job.workers is None else job.workers
    batches = open_loader(dataset, range(start, total), workers=workers, pin=device.type == "cuda")
    log = LoopLog(
        folder,
        start=start,
        total=total,
        batch=recipe.data.batch,
        steps_per_epoch=order.steps_per_epoch,
        is_writer=rank() == 0,
        progress=progress,
        damaged=damaged,
    )
    with (
        closing(log),
        noticing_stop() as stop,
        progress.task("pre-training", total=total, unit="steps", done=start) as bar,
    ):
        for step in range(start, total):
            log.meter.wait()
            batch = next(batches).to(device)
            log.meter.work()
            log.note_damage(batch.damaged)
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
            log.add(loss=loss, hits=hits)

            done = step + 1
            stopping = agree_to_stop(stop.wanted, device) and done < total
            saving = is_due(done, order.steps_per_epoch, recipe.saving.every_epochs) and done < total
            log.write_step(done, rate=rate, is_due=saving or stopping, bar=bar)
            if saving or stopping or done == total:
                log.check_weights(method.encoder_q, done=done, rate=rate)
                average_(running_statistics(method))
                log.share_damage()
            if rank() == 0 and (saving or stopping):
                folder.save_state(pack_state(done, method, optimizer, damaged=log.damaged))
            if stopping:
                raise stop.error(done, total)
    if rank() == 0:
        counts = {"steps": total, "images": len(images), "damaged": len(log.damaged)}
        finish_run(job, method, packs, {**counts, **log.values})


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


def build_schedule(recipe: PretrainRecipe, steps_per_epoch: int) -> Schedule:
    """The learning rate a recipe describes."""
    return Schedule(lr=recipe.optim.lr, steps_per_epoch=steps_per_epoch, **recipe.schedule.model_dump())
