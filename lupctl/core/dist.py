"""The processes of one training job, one or many."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lupctl.core.errors import DeviceError, LupError, StoppedError, UsageError

T = TypeVar("T")
# Set by every launcher: ours, torchrun, and an srun script that follows PyTorch's conventions.
LAUNCHED = "TORCHELASTIC_RUN_ID"
# Processes of one machine meet here. Its own name need not resolve, and looking it up then takes for ever.
LOOPBACK = "127.0.0.1"


def world_size() -> int:
    """Processes in this job; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_interleaved(local: Tensor) -> Tensor:
    """Rows of all processes in the order of the global batch, without gradient.

    Process r holds rows r, r + W, r + 2W, … of the global batch of W processes.

    Args:
        local: (b, …), the same shape everywhere.

    Returns:
        (b * W, …).
    """
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def gather_with_gradient(local: Tensor) -> Tensor:
    """Rows of all processes, with gradient to all of them; in process order, (b * W, …)."""
    return local if world_size() == 1 else _Gather.apply(local)


class _Gather(torch.autograd.Function):
    """Every process's loss may depend on every process's rows, so a row's gradient is the sum over all of them."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather_plain(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_plain(local: Tensor) -> Tensor:
    """Rows of all processes without gradient, in process order, (b * W, …)."""
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def own_share(everything: Tensor) -> Tensor:
    """This process's rows of a global batch."""
    return everything[rank() :: world_size()]


def average_(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes, in one message per type."""
    if world_size() == 1:
        return
    # In order of appearance: a set of types has another order in every process, and messages would cross.
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        group = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= world_size()
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def agree_to_stop(wanted: bool, device: torch.device) -> bool:
    """Whether any process was asked to stop; all get the same answer at the same step."""
    if world_size() == 1:
        return wanted
    flag = torch.tensor([float(wanted)], device=device)
    dist.all_reduce(flag)
    return bool(flag.item() > 0)


def gather_texts(local: set[str]) -> set[str]:
    """The texts of all processes."""
    if world_size() == 1:
        return local
    parts: list[set[str]] = [set() for _ in range(world_size())]
    dist.all_gather_object(parts, local)
    return set().union(*parts)


def broadcast_(tensors: list[Tensor]) -> None:
    """Gives every process the tensors of process 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor, src=0)


def launch(entry: Callable[[T], None], job: T, *, processes: int, kind: str) -> None:
    """Runs `entry(job)` in several processes of one training job, through PyTorch's elastic launcher.

    With one process, or inside a job that an outer torchrun or srun started, it is called right here.

    Args:
        entry: a module-level function; every process calls it with the same job.
        job: picklable.
        processes: on this machine.
        kind: cuda or cpu; picks nccl or gloo.

    Raises:
        LupError: the first one that any process met.
        StoppedError: the job was asked to stop and has saved its state.
    """
    if processes == 1 or LAUNCHED in os.environ:
        with joined_job(kind):
            entry(job)
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="lupctl-job-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"lupctl-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint=f"{LOOPBACK}:0",
            local_addr=LOOPBACK,
            max_restarts=0,
            monitor_interval=0.2,
        )
        try:
            elastic_launch(config, _run_child)(entry, job, kind, folder)
        except SignalException as error:
            stopped = _first_error(Path(folder))
            if stopped is not None:
                raise stopped from error
            raise StoppedError("stopped on request", hint="type the same command again") from error
        except ChildFailedError as error:
            met = _first_error(Path(folder))
            if met is not None:
                raise met from error
            number, failure = error.get_first_failure()
            raise LupError(
                f"process {number} of {processes} died (exit code {failure.exitcode}); all were stopped",
                hint="type the same command again to continue from the last saved state",
            ) from error


def _run_child(entry: Callable[[T], None], job: T, kind: str, folder: str) -> None:
    """One process of a job; an error that a user can act on is left in a file for the parent."""
    try:
        with joined_job(kind):
            entry(job)
    except (LupError, torch.OutOfMemoryError) as met:
        error = met if isinstance(met, LupError) else _out_of_memory(met)
        note = Path(folder) / f"{time.monotonic_ns():020d}-{os.environ['RANK']}.json"
        note.write_text(json.dumps([type(error).__name__, error.message, error.hint]), encoding="utf-8")
        sys.exit(error.exit_code)


def _out_of_memory(error: torch.OutOfMemoryError) -> DeviceError:
    return DeviceError(
        f"out of memory ({str(error).partition(chr(10))[0]})", hint="a smaller batch, as in --set data.batch=..."
    )


def _first_error(folder: Path) -> LupError | None:
    for note in sorted(folder.glob("*.json")):
        name, message, hint = json.loads(note.read_text(encoding="utf-8"))
        kinds = {kind.__name__: kind for kind in every_kind(LupError)}
        return kinds[name](message, hint)
    return None


def every_kind(kind: type[LupError]) -> list[type[LupError]]:
    """An error class and all below it."""
    return [kind, *(below for child in kind.__subclasses__() for below in every_kind(child))]


@contextmanager
def joined_job(kind: str) -> Iterator[None]:
    """Joins the job that the environment describes, if there is one."""
    if LAUNCHED not in os.environ:
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", device_id=torch.device("cuda", local))
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(kind: str) -> torch.device:
    """The device of this process."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")


def check_split(batch: int, groups: int, processes: int) -> None:
    """Refuses devices that cannot share a batch and its batch-norm groups evenly.

    Raises:
        UsageError: the number of processes does not divide the batch, or the groups.
    """
    if batch % processes:
        raise UsageError(
            f"a batch of {batch} does not divide among {processes} devices",
            hint="choose a batch that is a multiple of the devices, as in --set data.batch=...",
        )
    if groups % processes:
        raise UsageError(
            f"bn_groups = {groups} does not divide among {processes} devices; every device needs whole groups",
            hint=f"--set bn_groups={processes}",
        )
