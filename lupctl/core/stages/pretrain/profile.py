"""Where pre-training spends its time, measured over a few steps that write nothing."""

import time
from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch

from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining, threads_of
from lupctl.core.stages.pretrain.setup import Setup, build_trained, open_batches, set_up
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.system.jobs.device import computing_threads
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import rank, timing_messages
from lupctl.core.system.threads.cores import usable_cores
from lupctl.core.training.engine.stopwatch import Stopwatch
from lupctl.core.training.views.plan import draw_views

WARM_UP = 2
LOOP_PARTS = ("wait", "copy", "transform", "keys", "forward", "backward", "communication", "optimizer")
# Of self-distillation: the teacher's pass, and pseudo labels of body parts.
DISTILLATION_PARTS = ("targets", "labels")
WORKER_PARTS = ("read", "decode", "draw")
WAIT_LIMIT = 0.02
MEASURED_IMAGES = 256


@dataclass(frozen=True)
class Profile:
    """Seconds per step in process 0.

    Args:
        steps: number of measured steps.
        batch: images per step over all devices.
        step_s: duration of a step.
        loop_s: time in a step by part: waiting for data, copying it to the device, the views' pixels, keys, queries,
            backward pass, messages between processes, optimizer; of self-distillation also targets and pseudo labels.
        worker_s: time of one worker for this process's share of a step, by part: reading, decoding, drawing the views.
        workers: decoding processes of this process.
        cores: number of cores that this process may use.
        kind: cuda or cpu.
    """

    steps: int
    batch: int
    step_s: float
    loop_s: dict[str, float]
    worker_s: dict[str, float]
    workers: int
    cores: int
    kind: str

    def to_json(self) -> dict[str, Any]:
        """The same with rates, shares and advice."""
        shares = {name: value / self.step_s for name, value in self.loop_s.items()}
        return {**asdict(self), "images_per_s": self.batch / self.step_s, "shares": shares, "advice": advise(self)}


def profile(job: PretrainJob, steps: int) -> Profile | None:
    """Run some steps of a job, after two warm-up steps, and measure where the time goes; writes nothing.

    Returns:
        what process 0 measured; None if it ran on another machine.

    Raises:
        DataError, UsageError: as `plan_pretraining`.
    """
    plan_pretraining(job)
    processes = job.local_processes
    return launch(_measure, (job, steps), processes=processes, kind=job.placement.kind, rendezvous=job.rendezvous)


def _measure(given: tuple[PretrainJob, int]) -> Profile | None:
    with computing_threads(threads_of(given[0])):
        return _measure_steps(*given)


def _measure_steps(job: PretrainJob, steps: int) -> Profile | None:
    recipe, setup = job.recipe, set_up(job)
    trained = build_trained(recipe, setup)
    batches = open_batches(setup, range(WARM_UP + steps), seed=recipe.seed)
    clock, started_at = Stopwatch(setup.device), 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            clock, started_at = Stopwatch(setup.device), time.perf_counter()
        with timing_messages(clock):
            with clock("wait"):
                batch = next(batches)
            with clock("copy"):
                batch = batch.to(setup.device)
            take_step(recipe, setup, trained, batch, trained.curves.now(step), clock=clock)
    passed = time.perf_counter() - started_at
    batches.close()
    if rank() > 0:
        return None
    return Profile(
        steps=steps,
        batch=recipe.data.batch,
        step_s=passed / steps,
        loop_s={name: clock.seconds.get(name, 0.0) / steps for name in parts_of(clock)},
        worker_s=measure_worker(setup, recipe.data.batch // job.placement.processes, seed=recipe.seed),
        workers=setup.workers,
        cores=usable_cores(),
        kind=setup.device.type,
    )


def parts_of(clock: Stopwatch) -> tuple[str, ...]:
    """The parts of a step, with those of self-distillation where it has any."""
    return LOOP_PARTS + tuple(name for name in DISTILLATION_PARTS if name in clock.seconds)


def measure_worker(setup: Setup, share: int, *, seed: int) -> dict[str, float]:
    """Seconds that one worker spends on `share` images, by part, estimated from some images of the first step."""
    ends = list(accumulate(len(pack) for pack in setup.packs))
    rows = setup.images.rows[setup.order.rows(0)[:MEASURED_IMAGES]]
    pack_rows = [(bisect_right(ends, row), row) for row in rows.tolist()]
    clock = Stopwatch(torch.device("cpu"))
    with clock("read"):
        encoded = [setup.packs[pack].read(row - (ends[pack - 1] if pack else 0)) for pack, row in pack_rows]
    with clock("decode"):
        for image in encoded:
            decode_rgb(image)
    with clock("draw"):
        size = setup.images.sizes(setup.order.rows(0)[:MEASURED_IMAGES])
        draw_views(setup.views, size, rows, seed=seed, epoch=0)
    return {name: clock.seconds[name] * share / len(rows) for name in WORKER_PARTS}


def advise(found: Profile) -> list[str]:
    """Advice on what to change, based on the measurements; the first line matters most."""
    waiting = found.loop_s["wait"] / found.step_s
    work = sum(found.worker_s.values())
    busy = found.step_s - found.loop_s["wait"]
    lines = []
    if waiting > WAIT_LIMIT:
        wanted = max(found.workers + 1, -int(-work // busy))
        needed = f"{wanted} worker{'s' if wanted > 1 else ''} would keep up"
        line = f"the loop waits for data {waiting:.0%} of the time; {needed}"
        if wanted <= found.cores:
            lines.append(f"{line}: --workers {wanted}")
        else:
            lines.append(
                f"{line}, but there are only {found.cores} cores: "
                "pack smaller images (lupctl data pack --size), or use fewer devices on this machine"
            )
    name = max((part for part in found.loop_s if part != "wait"), key=lambda part: found.loop_s[part])
    share = found.loop_s[name] / found.step_s
    network = {
        "cpu": "the network is the limit: use a GPU, or on this CPU a smaller --arch, net.width or pixels.height",
        "cuda": "the network is the limit, as it should be; precision = bf16 and net.compile = true may still help",
    }[found.kind]
    advice = {
        "copy": "images larger than the network needs are copied: pack smaller ones (lupctl data pack --size)",
        "transform": "drawing views is the limit: pack smaller images, or blur less often (augment.blur)",
        "communication": "messages are the limit: fewer machines with more devices each, or a larger batch",
        "labels": "pseudo labels are the limit: fewer restarts of k-means (solider.restarts)",
        "optimizer": "the update is the limit: a larger batch makes fewer of them",
    }.get(name, network)
    lines.append(f"{name} takes {share:.0%}; {advice}")
    return lines
