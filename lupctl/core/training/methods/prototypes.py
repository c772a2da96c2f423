"""One running mean direction for each class (Fu et al. 2022, arXiv 2203.16533; Li et al. 2020, arXiv 2009.07998)."""

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.shards import Shard
from lupctl.core.training.methods.shards import keep_whole


class Prototypes(nn.Module):
    """C rows of unit length; a class that was never seen has 0.

    Args:
        classes: C.
        dim: D of a feature.
        shard: the rows that this process has; None for all.
    """

    mean: Tensor

    def __init__(self, classes: int, dim: int, *, shard: Shard | None = None) -> None:
        super().__init__()
        self.shard = shard
        self.register_buffer("mean", torch.zeros(classes if shard is None else len(shard), dim))
        if shard is not None:
            keep_whole(self, shard)

    @torch.no_grad()
    def update(self, features: Tensor, label: Tensor, *, momentum: float) -> None:
        """Moves the prototypes of a batch's classes, as if sample after sample did c <- m c + (1 - m) q.

        For the n samples q_1 … q_n of one class in the order of the batch this is

            c <- m^n c + (1 - m) sum over j of m^(n - j) q_j

        and then unit length. Only these rows are normalised: the others have unit length, or are 0.

        Args:
            features: (B, D) of unit length, of the global batch in its order.
            label: (B) classes.
            momentum: m.
        """
        if self.shard is not None:
            own = (label >= self.shard.start) & (label < self.shard.stop)
            features, label = features[own], label[own] - self.shard.start
            if len(label) == 0:
                return
        order = label.argsort(stable=True)
        touched, counts = torch.unique_consecutive(label[order], return_counts=True)
        # In double precision, and class by class in the order of the batch: the same bits on every device of a job.
        last = counts.cumsum(0) - 1
        after = last.repeat_interleave(counts) - torch.arange(len(label), device=label.device)
        share = (1 - momentum) * torch.full_like(after, momentum, dtype=torch.double) ** after
        added = torch.segment_reduce(share[:, None] * features[order].double(), "sum", lengths=counts)
        kept = momentum ** counts.double()
        moved = kept[:, None] * self.mean[touched].double() + added
        self.mean[touched] = nn.functional.normalize(moved, dim=1).to(self.mean.dtype)
