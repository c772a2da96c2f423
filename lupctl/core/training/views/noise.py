"""Rectangles of Gaussian noise that does not depend on the device, on the batch, or on when it is drawn."""

from functools import lru_cache

import torch
from torch import Tensor

from lupctl.core.training.views.draws import KEY_STEPS, MULTIPLIERS, ROUNDS
from lupctl.core.training.views.host import is_quick_to_read
from lupctl.core.training.views.plan import ViewPlan

_LOW = 0xFFFFFFFF
# Half a word for each number.
_LEVELS = 1 << 16


def fill_noise(view: Tensor, rectangle: Tensor, seeds: Tensor, *, most: int) -> Tensor:
    """Replaces a rectangle of each image with noise, in place: one number for each pixel and channel.

    Args:
        view: (B, C, H, W) float32, contiguous.
        rectangle: (B, 4) top, left, height, width; height 0 for none.
        seeds: (B, 2) of each image's noise.
        most: pixels of the largest rectangle there can be, where it would take time to look.
    """
    if not is_quick_to_read(view):
        return _fill(view, rectangle, seeds, most)
    for image, pixels in enumerate((rectangle[:, 2] * rectangle[:, 3]).tolist()):
        if pixels:
            one = slice(image, image + 1)
            _fill(view[one], rectangle[one], seeds[one], pixels)
    return view


def _fill(view: Tensor, rectangle: Tensor, seeds: Tensor, most: int) -> Tensor:
    """The same for rectangles of at most `most` pixels."""
    count, channels, _, columns = view.shape
    top, left, height, width = rectangle.long()[:, :, None].unbind(1)  # each (B, 1)
    pixels = height * width
    number = torch.arange(most, device=view.device)
    number = torch.where(number < pixels, number, 0)  # (B, most): what is too much repeats the first pixel
    across = width.clamp(min=1)
    position = (top + number // across) * columns + left + number % across
    noise = gaussian_noise(seeds, channels * most).view(count, most, channels)
    noise = noise.gather(1, number[:, :, None].expand(-1, -1, channels)).transpose(1, 2)
    flat, position = view.flatten(2), position[:, None].expand(-1, channels, -1)
    noise = torch.where(pixels[:, :, None] > 0, noise, flat.gather(2, position))
    return flat.scatter_(2, position, noise).view(view.shape)


def largest_rectangle(plan: ViewPlan) -> int:
    """Pixels of the largest rectangle that a plan erases: both sides are rounded."""
    rounded = plan.erase_area[1] * plan.height * plan.width + (plan.height + plan.width + 1) / 2
    return min(int(rounded), plan.height * plan.width)


def gaussian_noise(seeds: Tensor, count: int) -> Tensor:
    """(B, count) standard normal numbers, each a function of its image's seed and of its position.

    A number is one of 65,536 values of equal probability, the normal quantiles (i + 0.5) / 65,536: a table gives the
    same bits on every device. The largest is 4.3.

    Args:
        seeds: (B, 2) int64, 32-bit words.
        count: numbers for each image.
    """
    blocks = torch.arange(-(-count // 8), device=seeds.device)
    words = torch.stack(philox_blocks(blocks, seeds), dim=2)  # (B, blocks, 4)
    halves = torch.stack([words & (_LEVELS - 1), words >> 16], dim=3).view(len(seeds), -1)
    return _quantiles(seeds.device)[halves[:, :count]]


def philox_blocks(blocks: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words, each (B, N), of `draws.philox` for the counters (block, 0, 0, 0) under each image's key.

    Args:
        blocks: (N) int64 numbers of the blocks.
        seeds: (B, 2) int64, the keys.
    """
    first, second = seeds[:, :1], seeds[:, 1:]
    x0 = blocks.expand(len(seeds), -1)
    x1 = x2 = x3 = torch.zeros_like(x0)
    for _ in range(ROUNDS):
        # The lower 64 bits of a product are right in signed numbers, too; the mask drops the signs of a shift.
        left, right = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x2 = (right >> 32 & _LOW) ^ x1 ^ first, (left >> 32 & _LOW) ^ x3 ^ second
        x1, x3 = right & _LOW, left & _LOW
        first, second = first + KEY_STEPS[0] & _LOW, second + KEY_STEPS[1] & _LOW
    return x0, x1, x2, x3


@lru_cache(maxsize=4)
def _quantiles(device: torch.device) -> Tensor:
    """(65,536) float32, ascending."""
    share = (torch.arange(_LEVELS, dtype=torch.double) + 0.5) / _LEVELS
    quantiles: Tensor = torch.special.ndtri(share)
    return quantiles.float().to(device)
