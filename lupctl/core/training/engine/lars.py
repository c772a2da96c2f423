"""Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv 1708.03888)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

TRUST = 0.001
EPSILON = 1e-8


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose rate is scaled for each weight by |w| / (|g| + decay |w|).

    Parameters of one dimension, which are the biases and the scales and shifts of every norm, take part neither in the
    scaling nor in the decay. The published LUPerson code intends the same (it excludes the names of biases and norms),
    but adds the decay to the gradient of all others twice; here it is added once.

    Args:
        parameters: the ones to train.
        lr: rate before scaling.
        momentum: of the scaled gradient.
        weight_decay: added to the gradient of weights.
    """

    def __init__(self, parameters: ParamsT, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            decay = group["weight_decay"]
            size, slope = parameter.norm(), gradient.norm()
            trust = TRUST * size / (slope + decay * size + EPSILON)
            # A weight or a gradient of zero has no direction to scale by.
            trust = torch.where((size > 0) & (slope > 0), trust, torch.ones_like(trust))
            gradient = gradient.add(parameter, alpha=decay).mul_(trust)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        speed = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        parameter.add_(speed, alpha=-group["lr"])
