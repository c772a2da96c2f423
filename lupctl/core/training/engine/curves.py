"""Numbers that change over a run: the learning rate, and everything else that is scheduled by step."""

import math
from dataclasses import dataclass
from typing import assert_never

from lupctl.core.choices import CurveKind, ScheduleKind, ScheduleUnit


@dataclass(frozen=True)
class RateCurve:
    """The learning rate of every step.

    Warm-up is linear from `warmup_factor` times the base rate. After it, cosine keeps the base rate up to
    `hold_epochs` and falls from there to the last epoch towards `final` times it; the warm-up does not shift it (as in
    LUPerson's code). Steps multiply by 0.1 at each milestone.

    Args:
        kind: cosine, steps or constant.
        unit: whether the rate changes once per epoch or at every step.
        lr: base rate.
        epochs: E.
        steps_per_epoch: converts steps to epochs.
        warmup_epochs: length of the warm-up.
        warmup_factor: share of the base rate at the start of the warm-up.
        hold_epochs: the epoch, counted from the start of the run, at which the cosine starts to fall.
        milestones: epochs of the steps.
        final: share of the base rate at the end of the cosine.
    """

    kind: ScheduleKind
    unit: ScheduleUnit
    lr: float
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01
    hold_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    final: float = 0.0

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        epoch = step / self.steps_per_epoch
        if self.unit == "epoch":
            epoch = float(int(epoch))
        if epoch < self.warmup_epochs:
            done = epoch / self.warmup_epochs
            return self.lr * (self.warmup_factor + (1 - self.warmup_factor) * done)
        match self.kind:
            case "cosine":
                if epoch <= self.hold_epochs:
                    return self.lr
                done = (epoch - self.hold_epochs) / (self.epochs - self.hold_epochs)
                return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))
            case "steps":
                return float(self.lr * 0.1 ** sum(milestone <= epoch for milestone in self.milestones))
            case "constant":
                return self.lr
            case _:
                assert_never(self.kind)


@dataclass(frozen=True)
class Curve:
    """A number that goes from one value to another, changing at every step.

    Args:
        kind: constant keeps `start`; linear and cosine reach `final`.
        start: value at step 0.
        steps: the step at which `final` is reached; the value stays there.
        final: value at the end.

    >>> decay = Curve("cosine", 0.04, steps=100, final=0.4)
    >>> [round(decay.at(step), 3) for step in (0, 50, 100, 200)]
    [0.04, 0.22, 0.4, 0.4]
    """

    kind: CurveKind
    start: float
    steps: int = 1
    final: float = 0.0

    def at(self, step: int) -> float:
        """Value at a step, counted from 0."""
        done = min(step / self.steps, 1.0)
        match self.kind:
            case "constant":
                return self.start
            case "linear":
                return self.start + (self.final - self.start) * done
            case "cosine":
                return self.final + (self.start - self.final) * 0.5 * (1 + math.cos(math.pi * done))
            case _:
                assert_never(self.kind)
