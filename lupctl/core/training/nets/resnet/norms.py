"""Batch normalisation whose statistics are taken over equal parts of the batch.

Published re-id results were made on several GPUs without synchronised batch norm: 320 or 16 images shared statistics,
not the whole batch. The number of such groups is therefore part of a recipe. Image i of the global batch belongs to
group i mod G, so that a process which takes every W-th image holds whole groups whenever W divides G, and is part of
one whenever G divides W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import world_size
from lupctl.core.training.nets.shared_norm import normalise_shared


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` over `groups` interleaved parts of the batch; same parameters, same keys."""

    groups: int = 1
    members: int = 1

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; B must be a multiple of `groups` in training."""
        if self.training and self.members > 1:
            return normalise_shared(self, input, self.members)
        if not self.training or self.groups == 1:
            return super().forward(input)
        return normalise_groups(self, input, self.groups)


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """`BatchNorm1d` over `groups` interleaved parts of the batch; same parameters, same keys."""

    groups: int = 1
    members: int = 1

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) to the same shape; B must be a multiple of `groups` in training."""
        if self.training and self.members > 1:
            return normalise_shared(self, input, self.members)
        if not self.training or self.groups == 1:
            return super().forward(input)
        return normalise_groups(self, input, self.groups)


def normalise_groups(norm: nn.BatchNorm1d | nn.BatchNorm2d, batch: Tensor, groups: int) -> Tensor:
    """Training-mode batch norm with separate statistics for each of `groups` interleaved parts.

    Running statistics take the mean over the groups of what each of them saw. (Published code ships those of one
    device; the mean of all has the same expectation and less noise, and does not depend on which process saves.)

    Args:
        norm: its parameters are used, its running statistics updated.
        batch: (B, C, ...), channels first or last.
        groups: divides B.

    Returns:
        the same shape, in the same order of memory where it is not compiled.
    """
    size, channels, *rest = batch.shape
    # A traced backward pass expects another order of this gradient than torch's kernel gives it (torch 2.14).
    is_last = batch.dim() == 4 and batch.stride(1) < batch.stride(3) and not torch.compiler.is_compiling()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    mean, var = norm.running_mean.repeat(groups), norm.running_var.repeat(groups)
    # Image b * G + g is entry (b, g): the groups become channels, with channels first without moving a byte.
    split = batch.reshape(size // groups, groups, channels, *rest)
    out = F.batch_norm(
        split.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2) if is_last else split.flatten(1, 2),
        mean,
        var,
        norm.weight.repeat(groups),
        norm.bias.repeat(groups),
        training=True,
        momentum=norm.momentum or 0.1,
        eps=norm.eps,
    )
    with torch.no_grad():
        norm.running_mean.copy_(mean.view(groups, channels).mean(0))
        norm.running_var.copy_(var.view(groups, channels).mean(0))
    out = out.reshape(split.shape)
    return out.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2) if is_last else out.flatten(0, 1)


def set_norm_groups(network: nn.Module, groups: int, *, members: int = 1) -> None:
    """Sets the number of groups this process holds in every batch norm of a network.

    Args:
        network: changed.
        groups: whole ones in this process.
        members: processes that share one group, where a process does not hold a whole one.
    """
    for module in network.modules():
        if isinstance(module, GroupedBatchNorm1d | GroupedBatchNorm2d):
            module.groups, module.members = groups, members


def share_norm_groups(network: nn.Module, groups: int, *, parts: int = 1) -> None:
    """Sets up the batch norms of a network for `groups` groups of the global batch, in however many processes.

    Args:
        network: changed.
        groups: of the global batch; it divides the number of processes, or the other way round.
        parts: of a process's share of the batch, one after the other; each has whole groups.
    """
    processes = world_size()
    if groups % processes == 0:
        set_norm_groups(network, groups // processes // parts)
    else:
        set_norm_groups(network, 1, members=processes // groups)
