"""Numbers that change over a run: the learning rate, and everything else that is scheduled by step."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import assert_never

from lupctl.core.choices import CurveKind, ScheduleKind, ScheduleUnit


@dataclass(frozen=True)
class Epochs:
    """The epochs of a run, which may differ in length; they and the steps count from 0.

    >>> epochs = Epochs((0, 4, 10))
    >>> epochs.of(3), epochs.of(4), epochs.at(7), epochs.total
    (0, 1, 1.5, 10)

    Args:
        begins: the first step of each epoch, and the number of steps of all of them.
    """

    begins: tuple[int, ...]

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.begins[-1]

    @property
    def mean_length(self) -> int:
        """Steps of an epoch, rounded where epochs differ."""
        return round(self.total / (len(self.begins) - 1))

    def of(self, step: int) -> int:
        """The epoch of a step; past the end, the last one."""
        return min(bisect_right(self.begins, step), len(self.begins) - 1) - 1

    def at(self, step: int) -> float:
        """The time of a step in epochs."""
        epoch = self.of(step)
        begin, length = self.begins[epoch], self.begins[epoch + 1] - self.begins[epoch]
        # Where all epochs have one length, this is step / length to the last bit.
        return (epoch * length - begin + step) / length

    def step_at(self, time: float) -> float:
        """The step, not rounded, at a time in epochs; past the end, epochs are as long as the last one."""
        epoch = min(int(time), len(self.begins) - 2)
        begin, length = self.begins[epoch], self.begins[epoch + 1] - self.begins[epoch]
        return time * length + (begin - epoch * length)

    def is_due(self, done: int, every_epochs: int) -> bool:
        """Whether step `done` ends an epoch whose number, from 1, is a multiple of `every_epochs`; never with 0."""
        ended = bisect_right(self.begins, done) - 1
        return every_epochs > 0 and ended > 0 and self.begins[ended] == done and ended % every_epochs == 0


def even_epochs(length: int, count: int) -> Epochs:
    """`count` epochs of `length` steps each."""
    return Epochs(tuple(range(0, length * count + 1, length)))


@dataclass(frozen=True)
class RateCurve:
    """The learning rate of every step.

    Warm-up is linear from `warmup_factor` times the base rate. After it, cosine keeps the base rate up to
    `hold_epochs` and falls from there to the last epoch towards `final` times it; the warm-up does not shift it (as in
    LUPerson's code). Steps multiply by 0.1 at each milestone.

    TransReID's curve is a cosine over all epochs, one value for each epoch e = 1 to E, which is set when the epoch
    starts or, in the code that descends from it, when it has ended: the first epoch then runs at the start of the
    warm-up, and all others one value late. Its start and its end are shares of the base rate of the run even in a
    group of parameters with a rate of its own. With B that of the run, g that of the group and W the warm-up:

        e < W:  0.01 B + e (g - 0.01 B) / W
        e < E:  0.002 B + (g - 0.002 B) (1 + cos(pi e / E)) / 2
        e = E:  0.002 B

    DINO's curve counts steps t = 0 to T - 1, of which W are warm-up. The last of these has the base rate B already, the
    first one after them has it again, and the end is never quite reached:

        t < W:  f B + (1 - f) B t / (W - 1)
        else:   final B + (1 - final) B (1 + cos(pi (t - W) / (T - W))) / 2

    Args:
        kind: cosine, steps, constant, transreid or dino.
        unit: whether the rate changes once per epoch or at every step; transreid changes once per epoch, dino at
            every step.
        lr: base rate.
        epochs: E.
        steps: of each epoch.
        warmup_epochs: length of the warm-up.
        warmup_factor: share f of the base rate at the start of the warm-up.
        hold_epochs: the epoch, counted from the start of the run, at which the cosine starts to fall.
        milestones: epochs of the steps.
        final: share of the base rate at the end of the cosine.
        lag: whether transreid sets the rate at the end of an epoch.
    """

    kind: ScheduleKind
    unit: ScheduleUnit
    lr: float
    epochs: int
    steps: Epochs
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01
    hold_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    final: float = 0.0
    lag: bool = False

    def at(self, step: int, *, scale: float = 1.0) -> float:
        """Learning rate of a step, counted from 0, in a group of parameters whose base rate is `scale` times `lr`."""
        match self.kind:
            case "cosine" | "steps" | "constant":
                return scale * self._proportional(step)
            case "transreid":
                return self._transreid(self.steps.of(step) + (0 if self.lag else 1), scale * self.lr)
            case "dino":
                return scale * self._dino(step)
            case _:
                assert_never(self.kind)

    def _proportional(self, step: int) -> float:
        """The rate of a step where a group's is always the same multiple of it."""
        epoch = self.steps.at(step)
        if self.unit == "epoch":
            epoch = float(int(epoch))
        if epoch < self.warmup_epochs:
            done = epoch / self.warmup_epochs
            return self.lr * (self.warmup_factor + (1 - self.warmup_factor) * done)
        if self.kind == "steps":
            return float(self.lr * 0.1 ** sum(milestone <= epoch for milestone in self.milestones))
        if self.kind == "constant" or epoch <= self.hold_epochs:
            return self.lr
        done = (epoch - self.hold_epochs) / (self.epochs - self.hold_epochs)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))

    def _dino(self, step: int) -> float:
        """The rate of a step by DINO's formula."""
        warmup = int(self.steps.step_at(self.warmup_epochs))
        if step < warmup:
            return self.lr * (self.warmup_factor + (1 - self.warmup_factor) * step / max(warmup - 1, 1))
        done = (step - warmup) / (self.steps.total - warmup)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))

    def _transreid(self, epoch: int, rate: float) -> float:
        """The value of an epoch, counted from 1, for a group with this base rate."""
        if epoch < self.warmup_epochs:
            low = self.warmup_factor * self.lr
            return low + epoch * (rate - low) / self.warmup_epochs
        low = self.final * self.lr
        return low + 0.5 * (rate - low) * (1 + math.cos(math.pi * epoch / self.epochs))


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
