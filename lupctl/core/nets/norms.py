"""Batch normalisation whose statistics are taken over equal parts of the batch.

Published re-id results were made on several GPUs without synchronised batch norm: 320 or 16 images shared statistics,
not the whole batch. The number of such groups is therefore part of a recipe. Image i of the global batch belongs to
group i mod G, so that a process which takes every W-th image holds whole groups whenever W divides G.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` over `groups` interleaved parts of the batch; same parameters, same keys.

    Running statistics take the mean over the groups of what each of them saw. (Published code ships those of one
    device; the mean of all has the same expectation and less noise, and does not depend on which process saves.)
    """

    groups: int = 1

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); B must be a multiple of `groups` in training."""
        if not self.training or self.groups == 1:
            return super().forward(input)
        batch, channels, height, width = input.shape
        groups = self.groups
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        mean, var = self.running_mean.repeat(groups), self.running_var.repeat(groups)
        # Image b * G + g is entry (b, g): the groups become channels without moving a byte.
        parts = input.reshape(batch // groups, groups * channels, height, width)
        out = F.batch_norm(
            parts,
            mean,
            var,
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=self.momentum or 0.1,
            eps=self.eps,
        )
        with torch.no_grad():
            self.running_mean.copy_(mean.view(groups, channels).mean(0))
            self.running_var.copy_(var.view(groups, channels).mean(0))
        return out.reshape(batch, channels, height, width)


def set_norm_groups(network: nn.Module, groups: int) -> None:
    """Sets the number of groups this process holds in every batch norm of a network."""
    for module in network.modules():
        if isinstance(module, GroupedBatchNorm2d):
            module.groups = groups
