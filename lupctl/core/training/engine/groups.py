"""Groups of parameters that share rate and decay: a rule on shapes, never on names."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer


def parameter_groups(
    parameters: Iterable[nn.Parameter], *, vector_rate: float = 1.0, vector_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters in groups for an optimizer; a single group if all are treated alike.

    A matrix has two or more dimensions: weights of convolutions and linear layers, tokens, position embeddings. The
    others are vectors: biases, and the scales and shifts of norms.

    Args:
        parameters: those that require no gradient are left out.
        vector_rate, vector_decay: factors on the rate and decay of vectors.

    Returns:
        groups with `params`, `rate_scale` and `decay_scale`, as `set_rates` reads them.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if vector_rate == vector_decay == 1:
        return [{"params": trained, "rate_scale": 1.0, "decay_scale": 1.0}]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    return [
        {"params": some, "rate_scale": rate, "decay_scale": decay}
        for some, rate, decay in ((matrices, 1.0, 1.0), (vectors, vector_rate, vector_decay))
        if some
    ]


def set_rates(optimizer: Optimizer, *, rate: float, decay: float) -> None:
    """Sets rate and weight decay of every group, each times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
        group["weight_decay"] = decay * group["decay_scale"]
