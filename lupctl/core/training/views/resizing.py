"""Crop, resize, padding and mirror in one go: short weighted sums of source lines, in one direction after the other."""

import math

import torch
from torch import Tensor

from lupctl.core.choices import Interpolation
from lupctl.core.training.views.drawn import DrawTensors
from lupctl.core.training.views.host import is_quick_to_read
from lupctl.core.training.views.plan import ViewPlan


def crop_resize(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    """(V * B, 3, plan.height, plan.width) in [0, 1]: crop, resize, padding and mirror.

    Args:
        plan: size and filter.
        pixels: (B, H, W, 3) uint8.
        draws: of V views of the B images, one view after the other.
    """
    box, shift = draws.box, draws.shift
    height, width = pixels.shape[1:3]
    lines, image, corner = _read_lines(plan, pixels, box)
    count, columns, rows = len(box), lines.shape[1], lines.shape[2] // 3
    # A window of the mirrored image is the mirror image of one that is as far on the other side.
    across = torch.where(draws.flip, -shift[:, 1], shift[:, 1]) if plan.pad_after_flip else shift[:, 1]
    index, weight = resize_taps(box[:, 1], box[:, 3], across, plan.width, width, plan.interpolation)
    mirrored = draws.flip[:, None, None]
    index, weight = (torch.where(mirrored, taps.flip(1), taps) for taps in (index, weight))
    # Horizontally first, then vertically, as in the Pillow of published code: bicubic overshoot is clipped after each.
    lines = _sum_taps(lines, image, _within(index, corner[:, 1], columns), weight / 255.0)
    if plan.interpolation == "bicubic":
        lines.clamp_(0, 1)
    lines = lines.view(count, plan.width, 3, rows).permute(0, 3, 2, 1).reshape(count, rows, 3 * plan.width)
    index, weight = resize_taps(box[:, 0], box[:, 2], shift[:, 0], plan.height, height, plan.interpolation)
    each = torch.arange(count, device=lines.device)
    lines = _sum_taps(lines, each, _within(index, corner[:, 0], rows), weight)
    if plan.interpolation == "bicubic":
        lines.clamp_(0, 1)
    return lines.view(count, plan.height, 3, plan.width).permute(0, 2, 1, 3).contiguous()


def _read_lines(plan: ViewPlan, pixels: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The columns of the source as float32 lines, (N, columns, 3 * rows); the line group of each view; its corner.

    On a CPU each view of a crop has lines of its own, of a window as large as the largest crop: a crop of a twentieth
    of the image should not cost the rest. An accelerator, which would have to wait for that size, reads whole images,
    once for all views.
    """
    count, height, width, _ = pixels.shape
    image = torch.arange(len(box), device=pixels.device) % max(count, 1)
    if plan.crop_area is None or not is_quick_to_read(pixels) or len(box) == 0:
        lines = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return lines.view(count, width, 3 * height), image, torch.zeros_like(box[:, :2], dtype=torch.long)
    rows, columns = box[:, 2:].amax(dim=0).long().tolist()
    corner = torch.minimum(box[:, :2].long(), torch.tensor([height - rows, width - columns]))
    lines = torch.empty(len(box), columns, 3, rows)
    for own, source, (top, left) in zip(lines, image.tolist(), corner.tolist(), strict=True):
        own.copy_(pixels[source, top : top + rows, left : left + columns].permute(1, 2, 0))
    return lines.view(len(box), columns, 3 * rows), torch.arange(len(box)), corner


def _within(index: Tensor, first: Tensor, number: int) -> Tensor:
    """Source pixels counted from the first of each window; those outside have weight 0."""
    return (index - first[:, None, None]).clamp_(0, number - 1)


def resize_taps(
    start: Tensor, length: Tensor, shift: Tensor, size: int, source: int, interpolation: Interpolation
) -> tuple[Tensor, Tensor]:
    """The source pixels of each output pixel, in one direction of each image, with Pillow's antialiased filters.

    Pillow stretches the filter by the reduction factor, samples it at source pixel centres inside the crop and
    normalises; so does this.

    Args:
        start: (B) first source pixel of the crop.
        length: (B) source pixels the crop covers.
        shift: (B) output pixels by which the window is offset from the resized image; pixels off it are zero (black).
        size: output pixels.
        source: source pixels of the slot.
        interpolation: bilinear (triangle) or bicubic (Keys, a = -0.5).

    Returns:
        (B, size, T) int64 source pixels and their float32 weights.
    """
    support = 1.0 if interpolation == "bilinear" else 2.0
    position = torch.arange(size, device=start.device) + shift[:, None]  # (B, size)
    scale = (length / size)[:, None]
    stretch = scale.clamp(min=1.0)
    # As many pixel centres as fit strictly inside the widest filter: of these crops, or, where reading it would make an
    # accelerator wait, of any crop of this slot. Taps that are not needed have weight 0.
    widest = float(stretch.max()) if is_quick_to_read(start) else max(1.0, source / size)
    num_taps = math.ceil(2 * support * widest)
    centre = start[:, None] + (position + 0.5) * scale
    first = (centre - support * stretch - 0.5).floor() + 1
    pixel = first[:, :, None] + torch.arange(num_taps, device=start.device)
    offset = (pixel + 0.5 - centre[:, :, None]) / stretch[:, :, None]
    weight = _triangle(offset) if interpolation == "bilinear" else _keys(offset)
    weight = weight * ((pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    weight = weight / sum_last(weight).clamp(min=1e-12)
    weight = weight * ((position >= 0) & (position < size))[:, :, None]
    return pixel.clamp(0, source - 1).long(), weight


def _sum_taps(lines: Tensor, group: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of lines: (B, N, M) float32, of the (V) groups, with (V, size, T) taps; to (V, size, M)."""
    groups, number, length = lines.shape
    flat, count = lines.view(groups * number, length), len(group)
    position = index + number * group[:, None, None]
    total: Tensor | None = None
    for tap in range(index.shape[2]):
        part = flat.index_select(0, position[:, :, tap].flatten()).view(count, -1, length)
        part.mul_(weight[:, :, tap, None])
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _triangle(offset: Tensor) -> Tensor:
    return (1 - offset.abs()).clamp_(min=0)


def _keys(offset: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5, Pillow's choice."""
    x = offset.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def sum_last(weight: Tensor) -> Tensor:
    """(..., 1) sums from left to right: the zeros that a wider neighbour adds do not change the last bit."""
    total = weight[..., :1].clone()
    for tap in range(1, weight.shape[-1]):
        total += weight[..., tap : tap + 1]
    return total
