"""Networks side by side: how long a pass takes, and how much memory."""

import gc
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from lupctl.core.errors import DeviceError
from lupctl.core.ranking.reports.model.speed import BenchRun
from lupctl.core.stages.bench.memory import GpuMemory, HostMemory, Memory
from lupctl.core.stages.bench.model import Contender, Runner
from lupctl.core.system.jobs.device import computing_threads
from lupctl.core.system.progress.lines import Progress

# Passes that each contender has at least, whatever time that takes.
LEAST_ROUNDS = 5
# What may be taken of the memory that is free: other programs want some too.
MOST_SHARE = 0.8
# A hint names no larger one.
ROUND_BATCH = 32


def time_contenders(
    contenders: Sequence[Contender],
    batches: Sequence[int],
    device: torch.device,
    *,
    seconds: float,
    progress: Progress,
) -> tuple[list[BenchRun], list[str]]:
    """Passes of all networks with each number of images, in turns, each in one thread on a CPU.

    What else the machine does slows all of them down alike.

    Args:
        contenders: the networks in their backends.
        batches: images of a pass.
        device: of the torch ones.
        seconds: for each contender and number of images.
        progress: shows a bar.

    Returns:
        what was measured, and what was left out.

    Raises:
        DeviceError: there is not enough memory.
    """
    timed, notes = list[BenchRun](), list[str]()
    with computing_threads(1), progress.task("bench", total=len(contenders) * len(batches), unit="series") as bar:
        opened = [_open(contender, batches, device) for contender in contenders]
        notes += [note for _, _, note in opened if note]
        for batch in dict.fromkeys(batch for _, passes, _ in opened for batch in passes):
            ready = [(one, *passes[batch]) for one, passes, _ in opened if batch in passes]
            series = _in_turns([call for _, call, _ in ready], seconds * len(ready))
            for (contender, _, memory), spent in zip(ready, series, strict=True):
                timed.append(_sum_up(contender, batch, spent, memory))
                bar.advance()
    return timed, notes


Pass = tuple[Callable[[], object], int | None]


def _open(contender: Contender, batches: Sequence[int], device: torch.device) -> tuple[Contender, dict[int, Pass], str]:
    """A contender's passes with their memory, by the numbers of images that it takes; and a note on the others."""
    meter = GpuMemory(device) if contender.backend == "torch" and device.type == "cuda" else HostMemory()
    gc.collect()
    before = meter.start()
    runner = contender.open()
    if runner.only is not None:
        note = f"{contender.subject.name}: always takes {runner.only} images, so only that is run"
        passes = {runner.only: _first_passes(runner, runner.only, meter, before)}
        return contender, passes, "" if list(batches) == [runner.only] else note
    _first_passes(runner, 1, meter, before)  # what is only allocated once is not what an image takes
    opened = meter.start()
    peak = _first_passes(runner, 2, meter, opened)[1]
    # An image is at least its numbers in float32 and as many again, which the first layer makes of them.
    one = max((peak or 0) // 2, 2 * 4 * 3 * contender.subject.height * contender.subject.width)
    most = int(MOST_SHARE * meter.free() / one)
    if meter.free() and max(batches) > most:
        raise DeviceError(
            f"--batch {max(batches)}: {contender.subject.name} takes about {one / 2**20:,.1f} MiB for each image, and "
            f"{meter.free() / 2**30:,.1f} GiB of memory are free",
            hint=f"--batch {max(1, min(most, ROUND_BATCH))}",
        )
    passes = {batch: _first_passes(runner, batch, meter, before) for batch in sorted(batches)}
    return contender, {batch: passes[batch] for batch in batches}, ""


def _first_passes(runner: Runner, batch: int, meter: Memory, before: int) -> Pass:
    """A pass that has been run twice, and the most memory in that time above what there was before the network."""
    meter.start()
    call = runner.prepare(batch)
    for _ in range(2):
        call()
    return call, meter.above(before)


def _in_turns(calls: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Seconds of passes, every call once in each round, until so much time has passed; the first one changes."""
    spent: list[list[float]] = [[] for _ in calls]
    began_at = time.perf_counter()
    for number in itertools.count():
        if number >= LEAST_ROUNDS and time.perf_counter() - began_at >= seconds:
            return spent
        for place in range(len(calls)):
            which = (place + number) % len(calls)
            started_at = time.perf_counter()
            calls[which]()
            spent[which].append(time.perf_counter() - started_at)
    raise AssertionError("counting ends nowhere")


def _sum_up(contender: Contender, batch: int, spent: Sequence[float], memory: int | None) -> BenchRun:
    median = float(np.median(spent))
    return BenchRun(
        name=contender.subject.name,
        backend=contender.backend,
        batch=batch,
        rounds=len(spent),
        median_ms=1e3 * median,
        p95_ms=1e3 * float(np.quantile(spent, 0.95, method="higher")),
        images_per_s=batch / median,
        memory_bytes=memory,
    )
