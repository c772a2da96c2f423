"""How a CPU's convolutions get their numbers: in which order, and in which type where bfloat16 fails."""

import torch
from torch import Tensor, nn


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


class StridedConv2d(nn.Conv2d):
    """`Conv2d` with a stride, whose answers are right in bfloat16 on a CPU too.

    Where the map that comes out is one pixel wide, oneDNN's kernels for AMX leave numbers in it, or in the gradient of
    the weight, that were never written (torch 2.14, oneDNN 3.x; a 3 x 3 convolution of stride 2 over a map of width 1
    or 2, with channels first or last). Such maps are small, so float32 costs nothing there.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H', W'); of the type of the pass."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or self._width_of(input) > 1:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))

    def _width_of(self, input: Tensor) -> int:
        """Width of the map that comes out."""
        padding = self.padding[1]
        assert not isinstance(padding, str)
        return (input.shape[3] + 2 * padding - self.kernel_size[1]) // self.stride[1] + 1
