"""The processes of one training job, one or many."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.errors import DeviceError, LupError
from lupctl.core.system.jobs.outer import find_outer_job

T = TypeVar("T")
POLL_S = 0.02
# Who wants to know how long messages take; everything that is sent between processes passes through this clock.
_clock: list[Callable[[str], AbstractContextManager[None]]] = []


@contextmanager
def timing_messages(clock: Callable[[str], AbstractContextManager[None]]) -> Iterator[None]:
    """Lets a clock measure what is sent between processes, under the name communication."""
    _clock.append(clock)
    try:
        yield
    finally:
        _clock.pop()


def _timed() -> AbstractContextManager[None]:
    return _clock[-1]("communication") if _clock else nullcontext()


def wait_timed(message: dist.Work) -> None:
    """Waits for a message that would otherwise travel beside other work, where a clock wants to know how long."""
    if _clock:
        with _timed():
            message.wait()


def world_size() -> int:
    """Processes in this job; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def local_processes() -> int:
    """Processes of this job that share this machine, as far as a launcher says; 1 without one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


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
    with _timed():
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


def exchange_rows(local: Tensor, order: NDArray[np.int64]) -> Tensor:
    """This process's share of the global batch in another order: `own_share(everything[order])`, without gradient.

    Each process is sent the rows it takes and no others; nowhere is there room for the whole batch.

    Args:
        local: (b, …), this process's rows of the global batch of B, as for `gather_interleaved`.
        order: (B) a permutation that all processes know.

    Returns:
        (b, …).
    """
    number, own = world_size(), rank()
    if number == 1:
        return local[torch.from_numpy(order).to(local.device)]
    wanted = [order[process::number] for process in range(number)]
    sent = [rows[rows % number == own] // number for rows in wanted]
    owner = wanted[own] % number
    received = torch.empty_like(local)
    with _timed():
        dist.all_to_all_single(
            received,
            local[torch.from_numpy(np.concatenate(sent)).to(local.device)],
            output_split_sizes=np.bincount(owner, minlength=number).tolist(),
            input_split_sizes=[len(rows) for rows in sent],
        )
    # Rows came sorted by their owner; the inverse of that sort puts each in its place.
    place = np.argsort(np.argsort(owner, kind="stable"))
    return received[torch.from_numpy(place).to(local.device)]


def own_share(everything: Tensor) -> Tensor:
    """This process's rows of a global batch."""
    return everything[rank() :: world_size()]


def average_(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes, in one message per type."""
    if world_size() == 1:
        return
    # In order of appearance: a set of types has another order in every process, and messages would cross.
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in some])
        with _timed():
            dist.all_reduce(flat)
        flat /= world_size()
        parts = torch.split(flat, [tensor.numel() for tensor in some])
        torch._foreach_copy_(some, [part.view_as(own) for own, part in zip(some, parts, strict=True)])


def sum_(tensor: Tensor) -> Tensor:
    """Replaces a tensor by its sum over the processes, and returns it."""
    if world_size() > 1:
        with _timed():
            dist.all_reduce(tensor)
    return tensor


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


@contextmanager
def joined_job(kind: str, *, timeout: timedelta | None = None) -> Iterator[None]:
    """Joins the job that a launcher put this process into, if one did.

    Args:
        kind: cuda or cpu; picks nccl or gloo.
        timeout: how long a process waits for a message; None is PyTorch's limit of some minutes.

    Raises:
        DeviceError: the process was given no GPU.
    """
    outer = find_outer_job(os.environ)
    if outer is None:
        yield
        return
    os.environ |= outer.variables
    if kind == "cuda":
        device = own_device(kind)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(kind: str) -> torch.device:
    """The device of this process.

    Raises:
        DeviceError: a launcher started more processes on this machine than it gave them GPUs.
    """
    if kind != "cuda":
        return torch.device("cpu")
    place, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= visible > 1 or visible == 0:
        raise DeviceError(
            f"process {place} of this machine has no GPU of its own; {visible} are visible",
            hint="start as many processes on a machine as it has GPUs",
        )
    # A scheduler that binds each process to its GPU shows it that one alone.
    return torch.device("cuda", min(place, visible - 1))


def share_from_first(value: T) -> T:
    """Gives every process the picklable object of process 0."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def decide_first(decide: Callable[[], T]) -> T:
    """What process 0 decides, in every process.

    Args:
        decide: called in process 0 alone; what it gives must be picklable.

    Raises:
        LupError: the one that process 0 met; raised in every process.
    """
    answer: T | LupError | None = None
    if rank() == 0:
        try:
            answer = decide()
        except LupError as error:
            answer = error
    answer = share_from_first(answer)
    if isinstance(answer, LupError):
        raise answer
    return cast(T, answer)


def wait_for_all(*, unless: Callable[[], bool]) -> bool:
    """Waits until every process of the job has come here; gives up, False, as soon as `unless` is true here."""
    if world_size() == 1:
        return True
    # Asked again and again: no signal handler of Python's would run inside one long wait.
    arrival = dist.barrier(async_op=True)
    while not arrival.is_completed():
        if unless():
            return False
        time.sleep(POLL_S)
    arrival.wait()
    return True
