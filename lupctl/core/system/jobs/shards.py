"""Tables of which every process of a job has some rows, such as a classifier of many thousands of classes."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lupctl.core.system.jobs.messages import gather_plain, gather_with_gradient, rank, sum_, world_size


@dataclass(frozen=True)
class Shard:
    """This process's rows of a table: `start` to `stop - 1` of `total`."""

    start: int
    stop: int
    total: int

    def __len__(self) -> int:
        return self.stop - self.start


def own_shard(total: int) -> Shard:
    """Neighbouring rows for every process, as evenly as they go.

    >>> own_shard(7)
    Shard(start=0, stop=7, total=7)
    """
    number, own = world_size(), rank()
    return Shard(total * own // number, total * (own + 1) // number, total)


def spread(local: Tensor) -> Tensor:
    """Features of all processes, in process order, for work on a shard: (b, D) to (b W, D).

    If every process computes the same loss over all of them from its own rows, the gradient of its own features is the
    sum of what every shard says, times the number of processes: gradients of a network are averaged over processes.
    """
    if world_size() == 1:
        return local
    everything: Tensor = _Scaled.apply(gather_with_gradient(local), world_size())
    return everything


class _Scaled(torch.autograd.Function):
    """The same values, and a gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def gather_rows(local: Tensor, shard: Shard) -> Tensor:
    """The whole table, (total, …), in every process."""
    if world_size() == 1:
        return local
    number = world_size()
    most = -(-shard.total // number)
    padded = torch.zeros(most, *local.shape[1:], dtype=local.dtype, device=local.device)
    padded[: len(local)] = local
    parts = gather_plain(padded).chunk(number)
    sizes = [shard.total * (one + 1) // number - shard.total * one // number for one in range(number)]
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def shared_logsumexp(logits: Tensor) -> Tensor:
    """(B) log of the sum of exponentials over the classes of all processes, from (B, C of this one); no gradient."""
    own = logits.detach().logsumexp(dim=1)
    if world_size() == 1:
        return own
    most = own.clone()
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return most + sum_((own - most).exp()).log()


def pick_columns(logits: Tensor, index: Tensor, shard: Shard) -> Tensor:
    """(B, n) logits of some classes, whichever process has them; no gradient.

    Args:
        logits: (B, C of this process).
        index: (B, n) classes, the same in every process.
        shard: of this process.
    """
    inside = (index >= shard.start) & (index < shard.stop)
    local = logits.detach().gather(1, (index - shard.start).clamp(0, len(shard) - 1))
    return sum_(torch.where(inside, local, 0))


def first_choice(logits: Tensor, shard: Shard) -> Tensor:
    """(B) the class with the largest logit, over the classes of all processes; the first of several that are equal."""
    most, place = logits.detach().max(dim=1)
    every, places = gather_plain(most[None]), gather_plain(place[None] + shard.start)  # (W, B)
    return places.gather(0, every.argmax(dim=0)[None])[0]
