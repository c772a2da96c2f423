"""Gradients averaged over all parts of a batch, wherever the parts are computed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from lupctl.core.system.jobs.messages import wait_timed, world_size


@dataclass(frozen=True)
class _Sums:
    """Summed gradients of the finished parts of a step, in double precision, and the pending messages."""

    parts: int
    of: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    sent: list[Future[Tensor]] = field(default_factory=list)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Waits for pending messages before an error leaves: their callbacks could run after Python has shut down."""
        try:
            yield
        except BaseException:
            for message in self.sent:
                with suppress(Exception):
                    message.wait()
            raise
        finally:
            self.sent.clear()


class SharedGradients:
    """A network whose gradient after a step is the mean over the parts of the step in all processes of the job.

    PyTorch's DistributedDataParallel detects when gradients are complete and sends them while the backward pass still
    runs. Sums are taken in double precision, which adds a few float32 numbers without rounding (unless one of them is
    2^26 times as large as another). So neither the order of messages nor the number of processes that share the parts
    changes a bit. Between GPUs, sums are sent as float32: there, small messages matter more than the last bit.

    Args:
        network: the same in every process; parameters that require no gradient now are left out for good.
        parts: number of parts of this process's share of a batch, the same in every process.
    """

    def __init__(self, network: nn.Module, *, parts: int = 1) -> None:
        self.parts = parts
        self._network = network
        self._sums = _Sums(parts)
        self._parallel: DistributedDataParallel | None = None
        if world_size() > 1:
            # Gradients of convolutions with channels last have strides of their own, and are copied once more.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self._parallel = DistributedDataParallel(network, init_sync=False)
            # Every process keeps the running statistics of its own images. The argument with this name is deprecated.
            self._parallel.broadcast_buffers = False
            # The hook does not refer to this object: a cycle through C++ would never be collected.
            self._parallel.register_comm_hook(self._sums, _send)

    def __call__(self, *inputs: Tensor) -> Any:
        """The network's output, inside `part`; the backward pass may start from any function of it."""
        return (self._parallel or self._network)(*inputs)

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Surrounds forward and backward pass of a part, counted from 0; the last one leaves the step's gradients.

        The network's parameters must have no gradients before part 0.
        """
        is_last = number == self.parts - 1
        with nullcontext() if is_last or self._parallel is None else self._parallel.no_sync(), self._sums.awaited():
            yield
        if not is_last:
            self._put_aside(is_first=number == 0)
        elif self._parallel is None and self.parts > 1:
            for parameter, total in self._sums.of.items():
                if parameter.grad is not None:
                    parameter.grad.copy_(total.add_(parameter.grad).div_(self.parts))

    @torch.no_grad()
    def _put_aside(self, *, is_first: bool) -> None:
        """Adds the gradients of a part to the sums and removes them from the parameters."""
        for parameter in self._network.parameters():
            if parameter.grad is None:
                continue
            if parameter not in self._sums.of:
                self._sums.of[parameter] = torch.empty_like(parameter.grad, dtype=torch.double)
            total = self._sums.of[parameter]
            total.copy_(parameter.grad) if is_first else total.add_(parameter.grad)
            parameter.grad = None


def _send(sums: _Sums, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
    """Called by the backward pass of the last part, once for every bucket of complete gradients."""
    flat = bucket.buffer()
    total = flat.double() if flat.device.type == "cpu" or sums.parts > 1 else flat
    if sums.parts > 1:
        for parameter, own in zip(bucket.parameters(), bucket.gradients(), strict=True):
            # A bucket stores each gradient in its parameter's memory layout, which the view of it does not reflect.
            offset = own.storage_offset() - flat.storage_offset()
            total.as_strided(parameter.shape, parameter.stride(), offset).add_(sums.of[parameter])
    message: Tensor = total if flat.device.type == "cpu" else total.to(flat.dtype)
    work = dist.all_reduce(message, async_op=True)
    wait_timed(work)

    def finish(done: Future[list[Tensor]]) -> Tensor:
        done.wait()
        mean: Tensor = flat.copy_(message.div_(sums.parts * world_size()))
        return mean

    sums.sent.append(work.get_future().then(finish))
    return sums.sent[-1]
