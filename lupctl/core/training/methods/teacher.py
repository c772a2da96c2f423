"""A network that is the running average of another one (He et al. 2020, arXiv 1911.05722)."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def copy_teacher(student: N) -> N:
    """A copy of a network that takes no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def average_parameters(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """theta_t <- m theta_t + (1 - m) theta_s, over the teacher's parameters.

    Buffers stay: each network keeps the batch-norm statistics of its own forward passes.

    Args:
        teacher: changed.
        student: the same network.
        momentum: m, from 0 to 1.
    """
    averaged: list[Tensor] = list(teacher.parameters())
    current: list[Tensor] = list(student.parameters())
    torch._foreach_lerp_(averaged, current, 1 - momentum)
