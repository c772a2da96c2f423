"""Parts of a network that stand still at first."""

from collections.abc import Iterable

from torch import nn


def set_frozen(modules: Iterable[nn.Module], frozen: bool) -> None:
    """Freezes whole modules, or lets them train again.

    A frozen module is in evaluation mode, so that its batch-norm statistics stand still too, and its parameters get no
    gradient, so that an optimizer passes over them and keeps no state for them.

    Args:
        modules: all their parameters are ones that train.
        frozen: whether they stand still from now on.
    """
    for module in modules:
        module.train(not frozen)
        module.requires_grad_(not frozen)


def frozen_steps(epochs: float, steps_per_epoch: int) -> int:
    """How many steps a run begins with in which the trunk is frozen.

    fast-reid freezes while step <= epochs * steps per epoch, steps counted from 0: one more than it says.
    """
    return int(epochs * steps_per_epoch) + 1 if epochs > 0 else 0
