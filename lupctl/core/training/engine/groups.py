"""Groups of parameters that share rate and decay: rules on shapes and on modules, never on the names of tensors."""

from collections.abc import Iterable
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from lupctl.core.training.engine.curves import RateCurve

# What a module calls its own biases: published fine-tuning gives twice the rate to tensors with "bias" in their names.
BIASES: Final = ("bias", "relative_position_bias_table")


def parameter_groups(
    modules: Iterable[nn.Module], *, vector_rate: float = 1.0, vector_decay: float = 1.0, bias_rate: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters in groups for an optimizer; a single group if all are treated alike.

    A matrix has two or more dimensions: weights of convolutions and linear layers, tokens, position embeddings. The
    others are vectors: biases, and the scales and shifts of norms. A bias is what a module has as its `bias`, the
    shifts of norms too, and the table of biases of a windowed attention, which is a matrix. Factors multiply: a bias
    that is a vector has the rate vector_rate * bias_rate and the decay vector_decay.

    Args:
        modules: their parameters that require a gradient are trained; a parameter of two modules counts once.
        vector_rate, vector_decay: factors on the rate and decay of vectors.
        bias_rate: factor on the rate of biases.

    Returns:
        groups with `params`, `rate_scale` and `decay_scale`, as `set_rates` reads them.
    """
    together = nn.ModuleList(modules)
    biases = {
        parameter
        for module in together.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name in BIASES
    }
    scales = ((1.0, 1.0), (bias_rate, 1.0), (vector_rate, vector_decay), (vector_rate * bias_rate, vector_decay))
    members: dict[tuple[float, float], list[nn.Parameter]] = {scale: [] for scale in scales}
    for parameter in together.parameters():
        if parameter.requires_grad:
            kind = 2 * (parameter.dim() < 2) + (parameter in biases)
            members[scales[kind]].append(parameter)
    return [
        {"params": some, "rate_scale": rate, "decay_scale": decay} for (rate, decay), some in members.items() if some
    ]


def set_rates(optimizer: Optimizer, *, rate: RateCurve, step: int, decay: float) -> None:
    """Sets the rate of every group as its curve says, and weight decay, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate.at(step, scale=group["rate_scale"])
        group["weight_decay"] = decay * group["decay_scale"]
