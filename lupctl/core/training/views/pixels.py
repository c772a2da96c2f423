"""Pixels of a whole batch, from decoded bytes to network input, on any device.

A resize is a short weighted sum of source lines in each direction, and so is a blur. The lines of every image are
picked by index, each image with its own crop, padding and mirror. A view does not depend on the batch in which it is
made, on a CPU to the last bit.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.choices import Interpolation
from lupctl.core.training.views.drawn import DrawTensors
from lupctl.core.training.views.noise import fill_noise, largest_rectangle
from lupctl.core.training.views.plan import ViewPlan

# Rec. 601 luma as in Pillow; torchvision's tensor operations weigh red by 0.2989.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
BLUR_REACH = 3.0
# Pixels of source and result that a CPU processes at a time. With more, each of about thirty passes would go to memory
# instead of the cache; with fewer, the calls cost more than the work.
CHUNK_PIXELS = 1 << 18


def make_view(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    """One view of every image of a batch.

    Args:
        plan: size, constants and filter.
        pixels: (B, H, W, 3) uint8 RGB, images in the top left corner of their slot; pixels outside are not read.
        draws: of the B images, on the same device.

    Returns:
        (B, 3, plan.height, plan.width) float32, normalised.
    """
    # A training step may be under autocast when it makes its view; in bfloat16 a pixel has only 8 bits.
    with torch.autocast(pixels.device.type, enabled=False):
        if pixels.device.type != "cpu":
            return _make_view(plan, pixels, draws)
        count, height, width, _ = pixels.shape
        view = torch.empty(count, 3, plan.height, plan.width)
        chunk = max(1, CHUNK_PIXELS // (height * width + plan.height * plan.width))
        for start in range(0, count, chunk):
            end = min(start + chunk, count)
            view[start:end] = _make_view(plan, pixels[start:end], draws.part(start, end))
        return view


def _make_view(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    view = crop_resize(plan, pixels, draws)
    if plan.jitter.p > 0:
        view = jitter_colours(view, draws.jitter, draws.jitter_order)
    if plan.grey > 0:
        chosen = draws.grey.nonzero()[:, 0]
        view.index_copy_(0, chosen, luma(view[chosen]).expand(-1, 3, -1, -1))
    if plan.blur > 0:
        view = blur(view, draws.radius)
    if plan.erase > 0 and plan.erase_fill == "black":
        view = erase(view, draws.erase)
    mean = torch.tensor(plan.mean, device=view.device).view(1, 3, 1, 1)
    std = torch.tensor(plan.std, device=view.device).view(1, 3, 1, 1)
    view = view.sub_(mean).div_(std)
    if plan.erase > 0 and plan.erase_fill == "mean":
        view = erase(view, draws.erase)
    if plan.erase > 0 and plan.erase_fill == "noise":
        view = fill_noise(view, draws.erase, draws.noise, most=largest_rectangle(plan))
    return view


def crop_resize(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    """(B, 3, plan.height, plan.width) in [0, 1]: crop, resize, padding and mirror."""
    box, shift = draws.box, draws.shift
    count, height, width, _ = pixels.shape
    # A window of the mirrored image is the mirror image of one that is as far on the other side.
    across = torch.where(draws.flip, -shift[:, 1], shift[:, 1]) if plan.pad_after_flip else shift[:, 1]
    index, weight = resize_taps(box[:, 1], box[:, 3], across, plan.width, width, plan.interpolation)
    mirrored = draws.flip[:, None, None]
    index, weight = (torch.where(mirrored, taps.flip(1), taps) for taps in (index, weight))
    # Horizontally first, then vertically, as in the Pillow of published code: bicubic overshoot is clipped after each.
    lines = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
    lines = _sum_taps(lines.view(count, width, 3 * height), index, weight / 255.0)
    if plan.interpolation == "bicubic":
        lines.clamp_(0, 1)
    lines = lines.view(count, plan.width, 3, height).permute(0, 3, 2, 1).reshape(count, height, 3 * plan.width)
    index, weight = resize_taps(box[:, 0], box[:, 2], shift[:, 0], plan.height, height, plan.interpolation)
    lines = _sum_taps(lines, index, weight)
    if plan.interpolation == "bicubic":
        lines.clamp_(0, 1)
    return lines.view(count, plan.height, 3, plan.width).permute(0, 2, 1, 3).contiguous()


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
    widest = float(stretch.max()) if start.device.type == "cpu" else max(1.0, source / size)
    num_taps = math.ceil(2 * support * widest)
    centre = start[:, None] + (position + 0.5) * scale
    first = (centre - support * stretch - 0.5).floor() + 1
    pixel = first[:, :, None] + torch.arange(num_taps, device=start.device)
    offset = (pixel + 0.5 - centre[:, :, None]) / stretch[:, :, None]
    weight = _triangle(offset) if interpolation == "bilinear" else _keys(offset)
    weight = weight * ((pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    weight = weight / _sum_last(weight).clamp(min=1e-12)
    weight = weight * ((position >= 0) & (position < size))[:, :, None]
    return pixel.clamp(0, source - 1).long(), weight


def _sum_taps(lines: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of lines: (B, N, M) float32 and (B, size, T) taps to (B, size, M)."""
    count, number, length = lines.shape
    flat = lines.view(count * number, length)
    position = index + number * torch.arange(count, device=lines.device)[:, None, None]
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


def luma(view: Tensor) -> Tensor:
    """(B, 1, H, W) grey value of (B, 3, H, W)."""
    weights = torch.tensor(GREY_WEIGHTS, device=view.device, dtype=view.dtype).view(1, 3, 1, 1)
    return (view * weights).sum(dim=1, keepdim=True)


def blur(view: Tensor, radius: Tensor) -> Tensor:
    """Gaussian blur with a separate standard deviation per image, edges repeated; 0 leaves an image unchanged."""
    chosen = (radius > 0).nonzero()[:, 0]
    if len(chosen) == 0:
        return view
    kernel = _gaussian(radius[chosen])
    return view.index_copy(0, chosen, _blur_rows(_blur_rows(view[chosen], kernel, 3), kernel, 2))


def _gaussian(radius: Tensor) -> Tensor:
    """(B, taps) kernels, each cut off at three of its standard deviations and padded with zeros to the widest."""
    reach = (BLUR_REACH * radius + 0.5).floor().clamp_(min=1)
    widest = int(reach.max())
    step = torch.arange(-widest, widest + 1, device=radius.device)
    kernel = torch.exp(-0.5 * (step / radius[:, None]) ** 2) * (step.abs() <= reach[:, None])
    return kernel / _sum_last(kernel)


def _sum_last(weight: Tensor) -> Tensor:
    """(..., 1) sums from left to right: the zeros that a wider neighbour adds do not change the last bit."""
    total = weight[..., :1].clone()
    for tap in range(1, weight.shape[-1]):
        total += weight[..., tap : tap + 1]
    return total


def _blur_rows(view: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Blur along one direction of (B, 3, H, W); lines beyond the edge repeat it."""
    taps, size = kernel.shape[1], view.shape[dim]
    reach = taps // 2
    padded = F.pad(view, (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach), mode="replicate")
    total = torch.zeros_like(view)
    for tap in range(taps):
        total.addcmul_(padded.narrow(dim, tap, size), kernel[:, tap].view(-1, 1, 1, 1))
    return total


def erase(view: Tensor, rectangle: Tensor) -> Tensor:
    """Sets a rectangle of each image to 0; (B, 4) top, left, height, width."""
    row = torch.arange(view.shape[2], device=view.device)
    column = torch.arange(view.shape[3], device=view.device)
    top, left, height, width = rectangle.unbind(1)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    kept = ~(rows[:, :, None] & columns[:, None, :])
    return view.mul_(kept[:, None])  # a third of the time of a masked fill


def jitter_colours(view: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue with each image's own factors in its own order.

    Args:
        view: (B, 3, H, W) in [0, 1].
        factors: (B, 4) brightness, contrast, saturation factors, hue shift in turns.
        order: (B, 4) operation per slot, -1 for none.
    """
    operations = (_brightness, _contrast, _saturation, _hue)
    view = view.clone()
    for slot in range(4):
        for number, operation in enumerate(operations):
            chosen = (order[:, slot] == number).nonzero()[:, 0]
            if len(chosen):
                view[chosen] = operation(view[chosen], factors[chosen, number].view(-1, 1, 1, 1))
    return view


def _blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return (share * first + (1 - share) * second).clamp_(0, 1)


def _brightness(view: Tensor, factor: Tensor) -> Tensor:
    return (view * factor).clamp_(0, 1)


def _contrast(view: Tensor, factor: Tensor) -> Tensor:
    # In double precision: the pieces in which a mean is computed depend on the number of images and of threads.
    return _blend(view, luma(view).mean(dim=(2, 3), keepdim=True, dtype=torch.double).float(), factor)


def _saturation(view: Tensor, factor: Tensor) -> Tensor:
    return _blend(view, luma(view), factor)


def _hue(view: Tensor, turns: Tensor) -> Tensor:
    """Shifts the hue of HSV by `turns`, saturation and value kept."""
    value, _ = view.max(dim=1)
    chroma = value - view.min(dim=1).values
    safe = chroma.clamp(min=1e-12)
    red, green, blue = view.unbind(1)
    hue = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixth = (hue + 6 * turns[:, 0]) % 6
    shades = []
    for offset in (5, 3, 1):
        position = (offset + sixth) % 6
        shades.append(value - chroma * torch.minimum(position, 4 - position).clamp(0, 1))
    return torch.stack(shades, dim=1)
