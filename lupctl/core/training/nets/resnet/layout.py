"""How a CPU's convolutions get their numbers: in which order, and in which type where bfloat16 fails."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.choices import Precision

# Channels that oneDNN's kernels for AVX-512 take at a time; 8 with AVX2.
BLOCK: Final = 16


class Convolutional(nn.Module):
    """A network of convolutions, which brings its images into the order of memory that a CPU wants."""

    keeps_order: bool = True
    """Whether training in float32 on a CPU takes images as they come, channels first."""

    def lay_out(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) with channels last on a CPU; as they are where every bit must stay.

        Convolutions, norms and pools keep the order of what they are given, so this settles it for the whole network.
        With channels first, a CPU spends much of what bfloat16 saves on bringing numbers into another order, and in
        float32 narrow networks take up to a quarter more time. With channels last sums come in another order, and so
        with other last bits: training in float32 keeps channels first where those of earlier runs are wanted.
        """
        is_free = torch.is_autocast_enabled("cpu") or not self.training or not self.keeps_order
        if images.device.type == "cpu" and is_free:
            return images.contiguous(memory_format=torch.channels_last)
        return images


def set_order(network: nn.Module, precision: Precision) -> None:
    """Lets a network take channels last on a CPU where it trains in float32, unless float32 is asked for by name."""
    for module in network.modules():
        if isinstance(module, Convolutional):
            module.keeps_order = precision == "float32"


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


class StridedPointConv2d(nn.Conv2d):
    """A 1 x 1 convolution with a stride and no padding, whose gradient is right on a CPU with channels last too.

    With fewer channels than a block, oneDNN's gradient of its weight writes beyond its memory there (torch 2.14;
    https://github.com/uxlfoundation/oneDNN/issues/6035). Of such narrow maps, the pixels that the stride leaves out are
    left out first.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H', W')."""
        is_safe = input.device.type != "cpu" or self.in_channels >= BLOCK or input.is_contiguous()
        # In training, a pass without gradient gives the very bits of the one with it that follows.
        may_learn = self.weight.requires_grad and (self.training or torch.is_grad_enabled())
        if is_safe or not may_learn:
            return super().forward(input)
        down, across = self.stride
        return F.conv2d(input[:, :, ::down, ::across], self.weight, self.bias)
