"""Pixels of a whole batch, from decoded bytes to network input, on any device.

Cropping and resizing are linear in each direction, so both are one matrix per image and direction: a batched matrix
product does the crop, the antialiased resize, the padding and the flip of every image at once, each with its own box.
"""

import torch
from torch import Tensor

from lupctl.core.choices import Interpolation
from lupctl.core.loading.views import ViewPlan

# Rec. 601 luma as Pillow has it; torchvision's tensor operations weigh red by 0.2989.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
BLUR_REACH = 3.0


def make_view(plan: ViewPlan, pixels: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """One view of every image of a batch.

    Args:
        plan: size, constants and filter.
        pixels: (B, H, W, 3) uint8 RGB, images in the top left corner of their slot; what lies outside is not read.
        draws: the fields of `lupctl.core.loading.views.ViewDraws` as tensors on the same device.

    Returns:
        (B, 3, plan.height, plan.width) float32, normalised.
    """
    # A training step may be under autocast when it makes its view; in bfloat16 a pixel has no more than 8 bits.
    with torch.autocast(pixels.device.type, enabled=False):
        return _make_view(plan, pixels, draws)


def _make_view(plan: ViewPlan, pixels: Tensor, draws: dict[str, Tensor]) -> Tensor:
    box, shift = draws["box"], draws["shift"]
    rows = resize_matrix(box[:, 0], box[:, 2], shift[:, 0], plan.height, pixels.shape[1], plan.interpolation)
    columns = resize_matrix(box[:, 1], box[:, 3], shift[:, 1], plan.width, pixels.shape[2], plan.interpolation)
    columns = torch.where(draws["flip"][:, None, None], columns.flip(1), columns)
    source = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    # Across first, then down, as in the Pillow of published code: what bicubic overshoots is cut off after each.
    view = torch.matmul(source, columns.transpose(1, 2)[:, None])
    if plan.interpolation == "bicubic":
        view.clamp_(0, 1)
    view = torch.matmul(rows[:, None], view)
    if plan.interpolation == "bicubic":
        view.clamp_(0, 1)
    if plan.jitter.p > 0:
        view = jitter_colours(view, draws["jitter"], draws["jitter_order"])
    if plan.grey > 0:
        view = torch.where(draws["grey"][:, None, None, None], luma(view), view)
    if plan.blur > 0:
        view = blur(view, draws["radius"])
    mean = torch.tensor(plan.mean, device=view.device).view(1, 3, 1, 1)
    std = torch.tensor(plan.std, device=view.device).view(1, 3, 1, 1)
    view = view.sub_(mean).div_(std)
    if plan.erase > 0:
        view = erase(view, draws["erase"])
    return view


def resize_matrix(
    start: Tensor, length: Tensor, shift: Tensor, size: int, source: int, interpolation: Interpolation
) -> Tensor:
    """Weights that crop and resize one direction of each image, with Pillow's antialiased filters.

    Pillow stretches the filter by the reduction factor, samples it at source pixel centres inside the crop and
    normalises each row; so does this.

    Args:
        start: (B) first source pixel of the crop.
        length: (B) source pixels the crop covers.
        shift: (B) output pixels by which the window lies off the resized image; rows off it are zero (black).
        size: output pixels.
        source: source pixels of the slot.
        interpolation: bilinear (triangle) or bicubic (Keys, a = -0.5).

    Returns:
        (B, size, source) float32.
    """
    place = torch.arange(size, device=start.device) + shift[:, None]  # (B, size)
    scale = (length / size)[:, None]
    stretch = scale.clamp(min=1.0)[:, :, None]
    centre = start[:, None] + (place + 0.5) * scale
    pixel = torch.arange(source, device=start.device, dtype=torch.float32)
    offset = (pixel + 0.5 - centre[:, :, None]) / stretch
    weight = _triangle(offset) if interpolation == "bilinear" else _keys(offset)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight = weight * inside[:, None]
    weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-12)
    if bool((shift != 0).any()):
        weight = weight * ((place >= 0) & (place < size))[:, :, None]
    return weight


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
    """Gaussian blur with a standard deviation of its own per image, edges repeated; 0 leaves an image alone."""
    chosen = (radius > 0).nonzero()[:, 0]
    if len(chosen) == 0:
        return view
    rows = _blur_matrix(radius[chosen], view.shape[2])
    columns = _blur_matrix(radius[chosen], view.shape[3])
    smooth = torch.matmul(torch.matmul(rows[:, None], view[chosen]), columns.transpose(1, 2)[:, None])
    return view.index_copy(0, chosen, smooth)


def _blur_matrix(radius: Tensor, size: int) -> Tensor:
    """(B, size, size) blur of a line whose end pixels repeat outwards."""
    # Each image's kernel ends where its own radius says, whatever the widest in the batch.
    reach = (BLUR_REACH * radius + 0.5).floor().clamp_(min=1)
    widest = int(reach.max())
    step = torch.arange(-widest, widest + 1, device=radius.device)
    kernel = torch.exp(-0.5 * (step / radius[:, None]) ** 2) * (step.abs() <= reach[:, None])
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    target = (torch.arange(size, device=radius.device)[:, None] + step).clamp(0, size - 1)  # (size, taps)
    matrix = torch.zeros(len(radius), size, size, device=radius.device)
    return matrix.scatter_add_(2, target.expand(len(radius), -1, -1), kernel[:, None].expand(-1, size, -1).contiguous())


def erase(view: Tensor, rectangle: Tensor) -> Tensor:
    """Sets a rectangle of each image to 0; (B, 4) top, left, height, width."""
    row = torch.arange(view.shape[2], device=view.device)
    column = torch.arange(view.shape[3], device=view.device)
    top, left, height, width = rectangle.unbind(1)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return view.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


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
    return _blend(view, luma(view).mean(dim=(2, 3), keepdim=True), factor)


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
        place = (offset + sixth) % 6
        shades.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(shades, dim=1)
