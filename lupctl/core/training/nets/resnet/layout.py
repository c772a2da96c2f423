"""In which order a convolutional network's numbers are stored."""

import torch
from torch import Tensor


def lay_out(images: Tensor, *, training: bool) -> Tensor:
    """Images (B, 3, H, W) as a CPU's convolutions want them, channels last; as they are where bits must stay.

    Convolutions, norms and pools keep the order of what they are given, so this settles it for the whole network. With
    channels first, a CPU spends much of what bfloat16 saves on bringing numbers into another order. Training in float32
    keeps them first, and with them every bit of runs of earlier versions.

    Args:
        images: of the network.
        training: whether the network is in training mode.
    """
    if images.device.type == "cpu" and (torch.is_autocast_enabled("cpu") or not training):
        return images.contiguous(memory_format=torch.channels_last)
    return images
