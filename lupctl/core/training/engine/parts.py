"""Less memory for the same update: a batch in parts, one after the other, and activations that are computed twice."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lupctl.core.system.jobs.messages import sum_, world_size
from lupctl.core.training.engine.state import running_statistics


def each_part(network: nn.Module, parts: int) -> Iterator[slice]:
    """The parts of a process's share of a batch, for forward (and backward) passes one after the other.

    Part p takes every `parts`-th image beginning at p, so that interleaved batch-norm groups stay whole. Running
    statistics end the same in every process, as one pass over the whole batch leaves them: their update is linear, so
    it is the mean of the updates that every part would have made alone. The sum is taken in double precision, as that
    of gradients.

    Args:
        network: its training-mode batch norms see the parts; changed between them.
        parts: how many, the same in every process; 1 is the share itself.
    """
    shares = [slice(part, None, parts) if parts > 1 else slice(None) for part in range(parts)]
    current = running_statistics(network)
    if not current or (parts == 1 and world_size() == 1):  # without batch norm there is nothing to share
        yield from shares
        return
    counted = [value for name, value in network.named_buffers() if name.endswith("num_batches_tracked")]
    before = [value.clone() for value in [*current, *counted]]
    total = torch.zeros_like(_flat_double(current))
    for share in shares:
        torch._foreach_copy_([*current, *counted], before)
        yield share
        total += _flat_double(current)
    _put_mean(current, total, parts * world_size())


def share_statistics(network: nn.Module) -> None:
    """Gives every process the mean of all processes' running statistics; those that are the same already stay."""
    current = running_statistics(network)
    if world_size() > 1 and current:
        _put_mean(current, _flat_double(current), world_size())


def _flat_double(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values]).double()


def _put_mean(values: list[Tensor], own_sum: Tensor, count: int) -> None:
    means = torch.split(sum_(own_sum).div_(count), [value.numel() for value in values])
    torch._foreach_copy_(values, [mean.view_as(value) for mean, value in zip(means, values, strict=True)])


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Lets each block keep its input alone and run again in the backward pass (Chen et al. 2016, arXiv 1604.06174).

    Keys, gradients and running statistics stay what they are.

    Args:
        blocks: of a trunk; changed, so that copies of the network must be made before.
    """
    for block in blocks:
        block.forward = _Recomputed(block)


class _Recomputed:
    def __init__(self, block: nn.Module) -> None:
        self._block, self._forward = block, block.forward

    def __call__(self, *inputs: Tensor | None) -> Any:
        return checkpoint(
            self._forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(self._block)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Lets batch norms update copies of their statistics, which are then forgotten."""
    kept = []
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, value in list(module.named_buffers(recurse=False)):
                kept.append((module, name, value))
                setattr(module, name, value.clone())
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
