"""Gradient clipping."""

from collections.abc import Iterable
from typing import assert_never

import torch
from torch import Tensor, nn

from lupctl.core.choices import ClipScope

# torch adds this to a norm before dividing by it.
EPSILON = 1e-6


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, *, scope: ClipScope = "all") -> None:
    """Scales gradients down to a norm of at most `limit`; 0 leaves them unchanged. Does not wait for the device.

    Args:
        parameters: those without a gradient are left out.
        limit: the largest norm.
        scope: whether the norm is of all gradients together or of each tensor.
    """
    if limit <= 0:
        return
    match scope:
        case "all":
            torch.nn.utils.clip_grad_norm_(parameters, limit)
        case "tensor":
            clip_each([parameter.grad for parameter in parameters if parameter.grad is not None], limit)
        case _:
            assert_never(scope)


@torch.no_grad()
def clip_each(gradients: list[Tensor], limit: float) -> None:
    """Multiplies each tensor by min(1, limit / (norm + 1e-6)), in place."""
    if gradients:
        scales = torch.stack(torch._foreach_norm(gradients)).add_(EPSILON).reciprocal_().mul_(limit).clamp_(max=1)
        torch._foreach_mul_(gradients, scales.unbind())
