"""Optimizers and learning rates."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import nn

from lupctl.core.choices import OptimizerName, ScheduleKind, ScheduleUnit
from lupctl.core.training.engine.lars import Lars


def build_optimizer(
    parameters: Iterable[nn.Parameter], *, name: OptimizerName, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer over all given parameters, biases and batch norm included, as the published recipes do.

    Args:
        parameters: those without gradient are left out.
        name: sgd, adam (decay added to the gradient), adamw (decoupled decay) or lars.
        lr: replaced at every step by the schedule.
        momentum: of sgd and lars; the others keep their usual 0.9 and 0.999.
        weight_decay: on every parameter; lars spares those of one dimension.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = all(parameter.is_cuda for parameter in trained)
    match name:
        case "sgd":
            return torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused or None)
        case "adam":
            return torch.optim.Adam(trained, lr=lr, weight_decay=weight_decay, fused=fused or None)
        case "adamw":
            return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=fused or None)
        case "lars":
            return Lars(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)
        case _:
            assert_never(name)


@dataclass(frozen=True)
class Schedule:
    """A learning rate for every step.

    Warm-up is linear from `warmup_factor` times the base rate. Behind it, cosine keeps the base rate up to
    `hold_epochs` and falls from there to the last epoch towards `final` times it; the warm-up does not move it (as in
    LUPerson's code). Steps multiply by 0.1 at each milestone.

    Args:
        kind: cosine, steps or constant.
        unit: whether the rate moves once per epoch or at every step.
        lr: base rate.
        epochs: E.
        steps_per_epoch: converts steps to epochs.
        warmup_epochs: length of the warm-up.
        warmup_factor: share of the base rate at its beginning.
        hold_epochs: the epoch, counted from the beginning of the run, at which the cosine begins to fall.
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

    def rate(self, step: int) -> float:
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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
