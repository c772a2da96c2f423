"""The processes of one training job, one or many."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes in this job; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_interleaved(local: Tensor) -> Tensor:
    """Rows of all processes in the order of the global batch, without gradient.

    Process r holds rows r, r + W, r + 2W, … of the global batch of W processes.

    Args:
        local: (b, …), the same shape everywhere.

    Returns:
        (b * W, …).
    """
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def own_share(everything: Tensor) -> Tensor:
    """This process's rows of a global batch."""
    return everything[rank() :: world_size()]


def average_(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes, in one message per type."""
    if world_size() == 1:
        return
    for kind in {tensor.dtype for tensor in tensors}:
        group = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= world_size()
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def agree_to_stop(wanted: bool, device: torch.device) -> bool:
    """Whether any process was asked to stop; all get the same answer at the same step."""
    if world_size() == 1:
        return wanted
    flag = torch.tensor([float(wanted)], device=device)
    dist.all_reduce(flag)
    return bool(flag.item() > 0)


def broadcast_(tensors: list[Tensor]) -> None:
    """Gives every process the tensors of process 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor, src=0)
