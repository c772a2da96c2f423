"""Which device a command runs on. A device that was named and is missing is an error, never a silent CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from lupctl.core.errors import DeviceError, UsageError
from lupctl.core.system.jobs.outer import OuterJob


@dataclass(frozen=True)
class Placement:
    """Where training runs.

    Args:
        kind: cuda or cpu.
        processes: how many, one device each.
        line: what was chosen and why, for a person.
        divides_cores: whether a number of processes on a CPU was asked for, each of which takes a share of the cores.
    """

    kind: str
    processes: int
    line: str
    divides_cores: bool = False


def pick_placement(*, gpus: int | None, processes: int | None, planned: bool = False) -> Placement:
    """From `--gpus` and `--processes` to devices.

    Args:
        gpus: None takes every visible GPU, else the CPU; 0 is the CPU.
        processes: CPU processes; with GPUs there is one process each.
        planned: the devices are asked for in a plan only and need not be here.

    Raises:
        DeviceError: more GPUs were asked for than there are.
        UsageError: `--processes` beside GPUs.
    """
    visible = torch.cuda.device_count()
    missing = gpus is not None and gpus > visible
    if missing and not planned:
        raise DeviceError(
            f"--gpus {gpus}: this machine has {visible} visible CUDA device{'s' if visible != 1 else ''}",
            hint="--gpus 0 runs on the CPU; lupctl doctor shows what is there",
        )
    count = visible if gpus is None else gpus
    if count and processes is not None:
        raise UsageError(
            f"--processes {processes}: only for the CPU; with GPUs there is one process for each", hint="add --gpus 0"
        )
    if count == 0:
        wanted = processes or 1
        why = "--gpus 0" if gpus == 0 else "no GPU is visible"
        line = f"device: cpu, {wanted} process{'es' if wanted > 1 else ''} ({why})"
        return Placement("cpu", wanted, line, divides_cores=processes is not None)
    if missing:
        return Placement("cuda", count, f"device: {count} x cuda (planned; {visible} visible here)")
    return Placement("cuda", count, f"device: {count} x {torch.cuda.get_device_name(0)}")


def describe_devices(placement: Placement) -> str:
    """What a job computes on, for the facts of a run: `cpu`, or the number and the name of its GPUs."""
    if placement.kind != "cuda":
        return placement.kind
    return f"{placement.processes} x {torch.cuda.get_device_name(0)}"


def pick_threads(placement: Placement, *, shares: int) -> int | None:
    """Threads of each process on a CPU.

    Args:
        placement: where the processes run.
        shares: equal parts of the machine's cores, of which a process takes one.

    Returns:
        None where they stay as they are: one process that was not asked for takes every core, and OMP_NUM_THREADS is
        obeyed.
    """
    if not placement.divides_cores or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, torch.get_num_threads() // shares)


@contextmanager
def computing_threads(number: int | None) -> Iterator[None]:
    """Makes torch compute in this many threads; None changes nothing."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


def join_placement(placement: Placement, outer: OuterJob, *, asked: int | None) -> Placement:
    """The devices of a job that torchrun or srun started, one for each of its processes.

    Args:
        placement: the kind of device that this process would take by itself.
        outer: the job.
        asked: devices per machine, where the command line names a number.

    Raises:
        UsageError: the launcher started another number of processes on this machine.
    """
    there = outer.local_processes
    if asked and there is not None and asked != there:
        raise UsageError(
            f"{asked} devices per machine were asked for, and {outer.launcher} started {there} processes on this one",
            hint=f"ask for {there}, or leave the number out",
        )
    line = f"device: {outer.processes} x {placement.kind}, one for each process that {outer.launcher} started"
    return replace(placement, processes=outer.processes, line=line)


def pick_device(name: str | None) -> torch.device:
    """From `--device` to a device.

    Raises:
        DeviceError: it is not there.
        UsageError: no such kind of device.
    """
    if name is None:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected cpu, cuda or cuda:N", hint="--device cpu") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected cpu, cuda or cuda:N", hint="--device cpu")
    if device.type == "cuda":
        visible = torch.cuda.device_count()
        if (device.index or 0) >= visible:
            raise DeviceError(
                f"--device {name}: this machine has {visible} visible CUDA devices",
                hint="--device cpu; lupctl doctor shows what is there",
            )
        return torch.device("cuda", device.index or 0)
    return device


def pick_devices(name: str | None, gpus: int | None) -> list[torch.device]:
    """From `--device` and `--gpus` to the devices that share work without being processes; all GPUs by default.

    Raises:
        DeviceError: one is not there.
        UsageError: both are given, or no such kind of device.
    """
    if name is not None:
        if gpus is not None:
            raise UsageError(f"--device {name} and --gpus {gpus} both name devices", hint="leave --gpus out")
        return [pick_device(name)]
    placement = pick_placement(gpus=gpus, processes=None)
    if placement.kind == "cpu":
        return [torch.device("cpu")]
    return [torch.device("cuda", index) for index in range(placement.processes)]
