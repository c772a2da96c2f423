"""Batch normalisation whose statistics are taken over the images of several processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import rank, sum_, world_size


def normalise_shared(norm: nn.BatchNorm1d | nn.BatchNorm2d, batch: Tensor, members: int) -> Tensor:
    """Training-mode batch norm with statistics over the images of all processes in this one's group.

    Image i of the global batch is in process i mod W and in group i mod G, so all images of process r are in group
    r mod G. Running statistics become those of the group; their mean over the processes is the mean over the groups.

    Args:
        norm: its parameters are used, its running statistics updated.
        batch: (B, C, ...), the same number of images in every process.
        members: number of processes in a group; divides the number of processes of the job.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    out, mean, var = _SharedNorm.apply(batch, norm.weight, norm.bias, norm.eps, members)
    count = batch.numel() // batch.shape[1] * members
    momentum = norm.momentum or 0.1
    with torch.no_grad():
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_((var * count / (count - 1)).to(norm.running_var.dtype), momentum)
    return out  # type: ignore[no-any-return]


class _SharedNorm(torch.autograd.Function):
    """Ioffe and Szegedy 2015 (arXiv 1502.03167), with the sums of both passes over all images of the group."""

    @staticmethod
    def forward(
        ctx: Any, batch: Tensor, weight: Tensor, bias: Tensor, eps: float, members: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = _all_but_channels(batch)
        var, mean = torch.var_mean(batch.to(weight.dtype), dims, correction=0)
        mean, square = _mean_of_group(torch.stack([mean.double(), var.double() + mean.double() ** 2]), members)
        var = (square - mean**2).clamp_(min=0)
        kind = weight.dtype
        out = F.batch_norm(batch, mean.to(kind), var.to(kind), weight, bias, training=False, eps=eps)
        ctx.save_for_backward(batch, weight, mean.to(kind), (var + eps).rsqrt().to(kind))
        ctx.members = members
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        batch, weight, mean, scale = ctx.saved_tensors
        shape = (1, -1) + (1,) * (batch.dim() - 2)
        dims = _all_but_channels(batch)
        gradient = gradients[0].to(weight.dtype)
        normal = (batch.to(weight.dtype) - mean.view(shape)) * scale.view(shape)
        of_bias, of_weight = gradient.sum(dims), (gradient * normal).sum(dims)
        count = batch.numel() // batch.shape[1]
        shift, slope = _mean_of_group(torch.stack([of_bias.double(), of_weight.double()]) / count, ctx.members)
        inner = gradient - shift.to(weight.dtype).view(shape) - normal * slope.to(weight.dtype).view(shape)
        return (inner * (weight * scale).view(shape)).to(batch.dtype), of_weight, of_bias, None, None


def _mean_of_group(own: Tensor, members: int) -> Tensor:
    """The mean of (2, C) over the processes of this one's group; a single message serves all groups."""
    groups = world_size() // members
    every = own.new_zeros((groups, *own.shape))
    every[rank() % groups] = own
    return sum_(every)[rank() % groups] / members


def _all_but_channels(batch: Tensor) -> list[int]:
    return [dim for dim in range(batch.dim()) if dim != 1]
