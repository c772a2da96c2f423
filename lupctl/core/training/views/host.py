"""What the host decides about pixels, so that no step waits for an accelerator."""

import torch
from torch import Tensor


def is_quick_to_read(tensor: Tensor) -> bool:
    """Whether numbers can be read without waiting for an accelerator."""
    return tensor.device.type == "cpu"


def pick(wanted: Tensor, device: torch.device) -> Tensor:
    """The positions that are true in (B) bool on the host, sent to a device, which need not have caught up."""
    return wanted.nonzero()[:, 0].to(device, non_blocking=True)
