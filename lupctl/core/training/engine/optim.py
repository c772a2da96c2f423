"""Optimizers."""

from collections.abc import Iterable
from typing import assert_never

import torch
from torch import nn

from lupctl.core.choices import OptimizerName
from lupctl.core.training.engine.groups import parameter_groups
from lupctl.core.training.engine.lars import Lars


def build_optimizer(
    modules: Iterable[nn.Module],
    *,
    name: OptimizerName,
    lr: float,
    momentum: float,
    weight_decay: float,
    vector_rate: float = 1.0,
    vector_decay: float = 1.0,
    bias_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer over all parameters of the modules, including biases and batch norm, as in LUPerson's recipes.

    Args:
        modules: those of their parameters that require no gradient are left out.
        name: sgd, adam (decay added to the gradient), amsgrad (adam whose second moments never fall; Reddi et al. 2018,
            arXiv 1904.09237), adamw (decoupled decay) or lars.
        lr, weight_decay: replaced at every step by `set_rates`.
        momentum: of sgd and lars; the others keep their usual 0.9 and 0.999.
        vector_rate, vector_decay: factors on both for parameters of one dimension; lars never applies decay to those.
        bias_rate: factor on the rate of biases.
    """
    groups = parameter_groups(modules, vector_rate=vector_rate, vector_decay=vector_decay, bias_rate=bias_rate)
    # Fused on a CPU, too: the same to rounding, several times faster, and without copies of the gradients.
    match name:
        case "sgd":
            sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
            begin_momentum(sgd)
            return sgd
        case "adam":
            return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, fused=True)
        case "amsgrad":
            return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, amsgrad=True, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
        case "lars":
            return Lars(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
        case _:
            assert_never(name)


def begin_momentum(optimizer: torch.optim.SGD) -> None:
    """Gives every parameter a momentum of zero, from which the first step makes its gradient, as it does without.

    The fused update fails where some parameters of a group have a momentum and others, frozen until now, have none.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
