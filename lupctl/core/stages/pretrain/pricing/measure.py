"""Steps of pre-training that are timed and leave nothing behind."""

import itertools
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from lupctl.core.stages.pretrain.job import PretrainJob, threads_of
from lupctl.core.stages.pretrain.labels import TrainLabels
from lupctl.core.stages.pretrain.pricing.shares import cut_recipe
from lupctl.core.stages.pretrain.setup import Setup, build_trained, open_batches, set_up
from lupctl.core.stages.pretrain.speed import random_batch, random_setup
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.system.jobs.device import computing_threads
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import (
    agree_to_stop,
    gather_plain,
    own_device,
    rank,
    share_from_first,
    world_size,
)
from lupctl.core.system.jobs.resident import peak_resident_bytes
from lupctl.core.training.engine.stopwatch import Clock, Stopwatch, untimed
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.loading.prefetch import on_device

# The first steps fill caches and pick kernels.
WARM_UP: Final = 2
# So many steps of a CPU have to fit into the time, or a part of the batch is measured.
STEPS_THAT_FIT: Final = 8
# One random batch after another is made once and used again: its pixels cost what those of a pack cost.
RANDOM_BATCHES: Final = 2


@dataclass(frozen=True)
class Trial:
    """What is measured.

    Args:
        job: on devices that are here, without a run.
        shares: divisors of the batch that may be measured instead of all of it, ascending.
        seconds: about how long.
        classes: number of labels of random images; 0 for a method without.
    """

    job: PretrainJob
    shares: tuple[int, ...]
    seconds: float
    classes: int


@dataclass(frozen=True)
class Measured:
    """Steps as process 0 saw them.

    Args:
        share: the batch was divided by this number.
        batch: images of a step over all processes.
        steps: number of timed steps, after the warm-up.
        step_s: duration of one.
        update_s: of it, the optimizer's, which does not grow with the batch; 0 where it was not timed.
        waiting_s: of it, waiting for data.
        memory_bytes: at the peak, of the process that needed most: allocated on a GPU, resident on a CPU; 0 if
            the system does not count it.
        before_bytes: the same before the first network was built.
        first_s: duration of the first step, which compiles networks that are to be.
        plain_s: where they are, duration of a step without.
    """

    share: int
    batch: int
    steps: int
    step_s: float
    update_s: float
    waiting_s: float
    memory_bytes: int
    before_bytes: int
    first_s: float = 0.0
    plain_s: float | None = None


def measure(trial: Trial) -> Measured | None:
    """Runs steps for about some seconds; None where process 0 of an outer job ran elsewhere.

    Raises:
        DataError: a pack is missing or damaged.
        InterruptedRunError: it was stopped.
    """
    job = trial.job
    return launch(_measure, trial, processes=job.local_processes, kind=job.placement.kind)


def _measure(trial: Trial) -> Measured | None:
    with computing_threads(threads_of(trial.job)):
        before, started_at = _peak_bytes(own_device(trial.job.placement.kind)), time.perf_counter()
        plain = _leave_uncompiled(trial)
        share = _pick_share(plain)
        left_s = max(trial.seconds - (time.perf_counter() - started_at), trial.seconds / 2)
        found = _time_steps(plain, share, warm_up=WARM_UP, seconds=left_s)
        if trial.job.recipe.net.compile:
            found = replace(_time_steps(trial, share, warm_up=WARM_UP, seconds=left_s), plain_s=found.step_s)
        return replace(found, before_bytes=before) if rank() == 0 else None


def _leave_uncompiled(trial: Trial) -> Trial:
    recipe = trial.job.recipe
    net = recipe.net.model_copy(update={"compile": False})
    return replace(trial, job=replace(trial.job, recipe=recipe.model_copy(update={"net": net})))


def _pick_share(trial: Trial) -> int:
    """The largest part of the batch of which enough steps fit into the time, the same in every process.

    Found from below: a small part takes longer for each image than a large one does, so each says that some larger one
    fits, or that none does.
    """
    if trial.job.placement.kind != "cpu" or len(trial.shares) == 1:
        return trial.shares[0]
    short = replace(trial, job=replace(trial.job, workers=0))
    limit_s = trial.seconds / STEPS_THAT_FIT
    share = trial.shares[-1]
    while True:
        step_s = share_from_first(_time_steps(short, share, warm_up=1, seconds=0.0).step_s)
        # At least twice as much, or the next measurement would cost more than it tells.
        larger = next((one for one in trial.shares if step_s * share / one <= limit_s), share)
        if larger > share // 2:
            return min(larger, share)
        share = larger


def _time_steps(trial: Trial, share: int, *, warm_up: int, seconds: float) -> Measured:
    """Steps until some seconds have passed, without those of compiling; one at least after those that warm up."""
    job = replace(trial.job, recipe=cut_recipe(trial.job.recipe, share))
    recipe, device = job.recipe, own_device(job.placement.kind)
    setup, source = _open_source(job, trial.classes)
    clock: Clock = Stopwatch(device) if device.type == "cpu" else untimed
    with closing(on_device(source, device)) as batches:
        trained = build_trained(recipe, setup)
        # Half-way through the run, when everything takes part that a schedule or a phase brings in later.
        middle = setup.total // 2
        started_at = measured_at = time.perf_counter()
        waiting_s, first_s, done = 0.0, 0.0, 0
        while not agree_to_stop(done > warm_up and time.perf_counter() - started_at >= seconds, device):
            if done == warm_up:
                clock = Stopwatch(device) if device.type == "cpu" else untimed
                measured_at, waiting_s = time.perf_counter(), 0.0
            asked_at = time.perf_counter()
            batch = next(batches).to(device)
            waiting_s += time.perf_counter() - asked_at
            now = trained.curves.now(min(middle + done, setup.total - 1))
            scalars = take_step(recipe, setup, trained, batch, now, clock=clock)
            if device.type == "cuda":
                scalars["loss"].item()  # waits: a step counts when its work is done
            done += 1
            if done == 1:
                first_s = time.perf_counter() - started_at
                started_at += first_s if recipe.net.compile else 0.0
        passed_s = time.perf_counter() - measured_at
    steps = done - warm_up
    peak = torch.tensor([_peak_bytes(device)], device=device)
    return Measured(
        share=share,
        batch=recipe.data.batch,
        steps=steps,
        step_s=passed_s / steps,
        update_s=clock.seconds.get("optimizer", 0.0) / steps if isinstance(clock, Stopwatch) else 0.0,
        waiting_s=waiting_s / steps,
        memory_bytes=int(gather_plain(peak).max()),
        before_bytes=0,
        first_s=first_s,
    )


def _open_source(job: PretrainJob, classes: int) -> tuple[Setup, Generator[Batch, None, None]]:
    """The data of a job, or random pixels where it has none, and its batches from the middle of the run on."""
    recipe = job.recipe
    if job.packs:
        setup = set_up(job)
        middle = setup.total // 2
        return setup, open_batches(setup, range(middle, middle + 2**31), seed=recipe.seed)
    # Rows of random images are those of one batch; every label occurs as often as it can.
    label = np.arange(recipe.data.batch) % max(classes // 2, 1)
    labels = TrainLabels(label, classes) if classes else None
    setup = random_setup(recipe, own_device(job.placement.kind), labels)
    return setup, _repeat(job, setup)


def _repeat(job: PretrainJob, setup: Setup) -> Generator[Batch, None, None]:
    """Batches of random pixels for this process, without end."""
    count = job.recipe.data.batch // world_size()
    made = [random_batch(job.recipe, setup, count, first=rank() * count) for _ in range(RANDOM_BATCHES)]
    yield from itertools.cycle(made)


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()
