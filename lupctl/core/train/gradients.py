"""Gradients that all processes of a job share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lupctl.core.dist import Averaging, world_size

BUCKET_BYTES = 25 << 20


@dataclass
class _Bucket:
    parameters: list[nn.Parameter] = field(default_factory=list)
    missing: int = 0
    message: Averaging | None = None


class SharedGradients:
    """Averages gradients over the processes while the backward pass still goes on.

    Parameters lie in buckets in the reverse of their order, which is about the order in which their gradients come. The
    buckets never change, so every step of every run adds in the same order. (torch's DistributedDataParallel builds its
    buckets anew after the first step of a process; with three processes or more, a resumed run would round otherwise.)

    Args:
        parameters: the same everywhere; those that want no gradient now are left out for ever.
        bucket_bytes: sent in one message; None is 25 MiB, as in torch.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, bucket_bytes: int | None = None) -> None:
        self._buckets: list[_Bucket] = []
        self._place: dict[Tensor, int] = {}
        self._next, self._is_last = 0, False
        if world_size() == 1:
            return
        room, kind = 0, None
        for parameter in reversed([one for one in parameters if one.requires_grad]):
            size = parameter.numel() * parameter.element_size()
            if size > room or parameter.dtype != kind:
                self._buckets.append(_Bucket())
                room, kind = bucket_bytes or BUCKET_BYTES, parameter.dtype
            room -= size
            self._buckets[-1].parameters.append(parameter)
            self._place[parameter] = len(self._buckets) - 1
            parameter.register_post_accumulate_grad_hook(self._note)  # type: ignore[no-untyped-call]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Around the last backward pass of a step: when it closes, every gradient is the mean over the processes.

        Gradients that backward passes before it left behind are part of the mean. A parameter without a gradient has
        none in any process.
        """
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._next, self._is_last = 0, True
        try:
            yield
        finally:
            self._is_last = False
        self._send(everything=True)
        for bucket in self._buckets:
            if bucket.message is not None:
                bucket.message.finish()
                bucket.message = None

    def _note(self, parameter: Tensor) -> None:
        if self._is_last:
            self._buckets[self._place[parameter]].missing -= 1
            self._send()

    @torch.no_grad()
    def _send(self, *, everything: bool = False) -> None:
        """Sends what is complete, in the order of the buckets: messages of different processes must not cross."""
        while self._next < len(self._buckets) and (everything or self._buckets[self._next].missing == 0):
            bucket = self._buckets[self._next]
            gradients = [one.grad for one in bucket.parameters if one.grad is not None]
            bucket.message = Averaging(gradients) if gradients else None
            self._next += 1
