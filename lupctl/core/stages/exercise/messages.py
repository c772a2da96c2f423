"""All-reduce over the devices of this machine, and its speed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import torch
import torch.distributed as dist

from lupctl.core.stages.exercise.check import Outcome, SkippedError, Trial, WrongError
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.system.jobs.outer import find_outer_job

# The gradients of an R50 on GPUs; less through the memory of a CPU.
NUMBERS: Final = {"cuda": 25_000_000, "cpu": 2_500_000}
# Processes on a CPU: as many as it takes to send anything.
CPU_PROCESSES: Final = 2
ROUNDS: Final = 5
# A process that waits longer for another one has lost it.
LONGEST: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Reduced:
    """What process 0 saw.

    Args:
        is_right: whether the sum is right in every process.
        seconds: of the fastest all-reduce.
    """

    is_right: bool
    seconds: float


def message_trials(devices: Sequence[torch.device]) -> list[Trial]:
    """All-reduce over all GPUs with nccl, or over two processes of the CPU with gloo."""
    kind = devices[0].type
    processes = len(devices) if kind == "cuda" else CPU_PROCESSES
    name = f"nccl over {count_things(processes, 'GPU')}" if kind == "cuda" else f"gloo over {processes} processes"
    return [Trial(f"all-reduce, {name}", partial(_exchange, kind, processes))]


def _exchange(kind: str, processes: int, left_s: float) -> Outcome:
    """Starts the processes of a job, as training does.

    Raises:
        SkippedError: there is one device only, or this process is in a job already.
        WrongError: a sum is wrong.
    """
    if processes == 1:
        raise SkippedError("one GPU: there is nobody to send anything to")
    if find_outer_job(os.environ) is not None:
        raise SkippedError("this process is in the job of another launcher")
    found = launch(reduce_rounds, kind, processes=processes, kind=kind, timeout=LONGEST)
    assert found is not None, "process 0 is on this machine"
    if not found.is_right:
        raise WrongError("the sum of all processes' numbers is not their sum")
    sent = 4 * NUMBERS[kind]
    speed = 2 * (processes - 1) / processes * sent / found.seconds / 1e9
    return Outcome(
        f"the sum of {sent / 1e6:,.0f} MB from each is right",
        f"{found.seconds * 1e3:,.1f} ms, {speed:,.2f} GB/s in and out of each",
        {"milliseconds": found.seconds * 1e3, "gigabytes_per_s": speed},
    )


def reduce_rounds(kind: str) -> Reduced:
    """Sums numbers over all processes a few times; called in each of them."""
    device, number = own_device(kind), world_size()
    own = torch.arange(NUMBERS[kind], device=device, dtype=torch.float32).remainder_(251)
    expected = own * (number * (number + 1) / 2)
    is_right, fastest = True, float("inf")
    for _ in range(ROUNDS):
        numbers = own * (rank() + 1)
        dist.barrier()
        began_at = time.perf_counter()
        dist.all_reduce(numbers)
        if kind == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began_at)
        is_right = is_right and bool(torch.equal(numbers, expected))
    verdict = torch.tensor([float(is_right)], device=device)
    dist.all_reduce(verdict, op=dist.ReduceOp.MIN)
    return Reduced(bool(verdict.item()), fastest)
