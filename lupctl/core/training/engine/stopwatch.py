"""Time spent in each section of a step."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

Clock = Callable[[str], AbstractContextManager[None]]


def untimed(name: str) -> AbstractContextManager[None]:
    """A clock that measures nothing."""
    return nullcontext()


class Stopwatch:
    """Adds up the seconds of named sections; a section inside another counts only for itself.

    Args:
        device: waited for at both ends of a section, so that its work counts in the section that started it.

    Attributes:
        seconds: by name.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: list[str] = []
        self._since = 0.0
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """A section with this name."""
        return self._section(name)

    @contextmanager
    def _section(self, name: str) -> Iterator[None]:
        self._switch(name)
        try:
            yield
        finally:
            self._switch(None)

    def _switch(self, name: str | None) -> None:
        """Adds the time since the last switch to the open section, then opens or closes one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        if name is None:
            self._open.pop()
        else:
            self._open.append(name)
        self._since = now


def time_calls(call: Callable[[], None], device: torch.device, *, budget_s: float) -> float:
    """Seconds of the fastest call, after one that warms up: other work on the machine only ever makes it slower.

    Args:
        call: what is measured.
        device: waited for after each call.
        budget_s: no further call begins once so much time has passed; at least one is measured.
    """
    started_at, measured = time.perf_counter(), list[float]()
    while len(measured) < 2 or time.perf_counter() - started_at < budget_s:
        began_at = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        measured.append(time.perf_counter() - began_at)
    return min(measured[1:])
