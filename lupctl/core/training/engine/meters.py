"""Throughput and running means of a training loop."""

import math
import time

import torch
from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.system.jobs.messages import average_
from lupctl.core.system.jobs.precision import name_precision


class LoopMeter:
    """Throughput and waiting time of a loop, over the steps since the last reading.

    Args:
        batch: images per step over all devices.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._started_at = time.perf_counter()
        self._waited_s = 0.0
        self._steps = 0
        self._waiting_since = 0.0

    def wait(self) -> None:
        """Marks the start of waiting for data."""
        self._waiting_since = time.perf_counter()

    def work(self) -> None:
        """Marks the arrival of the data."""
        self._waited_s += time.perf_counter() - self._waiting_since

    def step(self) -> None:
        """Counts a finished step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data; starts a new reading."""
        now = time.perf_counter()
        passed = max(now - self._started_at, 1e-9)
        values = {
            "images_per_s": round(self._steps * self.batch / passed, 1),
            "data_wait": round(self._waited_s / passed, 4),
        }
        self._started_at, self._waited_s, self._steps = now, 0.0, 0
        return values


class Means:
    """Running means of a few named numbers, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Adds one step's numbers (scalars); a step may leave some out."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Means since the last reading, over all processes, which read at the same steps."""
        if not self._sums:
            return {}
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        average_([means])
        values = dict(zip(self._sums, means.tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return values


def check_finite(
    values: dict[str, float], *, step: int, rate: float, last_good: str, precision: torch.dtype = torch.float32
) -> None:
    """Stops a run whose loss is no longer finite.

    Args:
        values: means since the last check.
        step: steps done.
        rate: learning rate of the last one.
        last_good: the state to continue from, for the message.
        precision: type of the passes, which may be the cause.

    Raises:
        DataError: one of them is NaN or infinite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            coarse = precision != torch.float32
            where = f"at learning rate {rate:.3g}" + (f" in {name_precision(precision)}" if coarse else "")
            raise DataError(
                f"{name} became {value} by step {step} {where}; last good state: {last_good}",
                hint=f"start over with a smaller rate, as in --force --lr {rate / 10:.1g}"
                + (", or with --force --set precision=float32" if coarse else ""),
            )
