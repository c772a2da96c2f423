"""Freezing parts of a network at the start of training."""

from collections.abc import Iterable

from torch import nn

from lupctl.core.training.engine.curves import Epochs


def set_frozen(modules: Iterable[nn.Module], frozen: bool) -> None:
    """Freezes whole modules, or lets them train again.

    A frozen module is in evaluation mode, so that its batch-norm statistics are frozen too, and its parameters get no
    gradient, so that an optimizer skips them and keeps no state for them.

    Args:
        modules: all their parameters must be trainable.
        frozen: whether to freeze them or to let them train.
    """
    for module in modules:
        module.train(not frozen)
        module.requires_grad_(not frozen)


def frozen_steps(time: float, epochs: Epochs) -> int:
    """Number of steps at the start of a run in which the trunk is frozen.

    fast-reid freezes while step <= epochs * steps per epoch, with steps counted from 0: one step more than configured.
    """
    return int(epochs.step_at(time)) + 1 if time > 0 else 0
