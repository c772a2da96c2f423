"""Pixels of a whole batch, from decoded bytes to network input, on any device.

A resize is a short weighted sum of source lines in each direction, and so is a blur. The lines of every image are
picked by index, each image with its own crop, padding and mirror. A view does not depend on the batch in which it is
made, on a CPU to the last bit. Nothing here waits for an accelerator.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from lupctl.core.training.views.colours import grey, jitter_colours, solarise
from lupctl.core.training.views.drawn import DrawTensors, join_draws
from lupctl.core.training.views.host import is_quick_to_read, pick
from lupctl.core.training.views.noise import fill_noise, largest_rectangle
from lupctl.core.training.views.plan import ViewPlan
from lupctl.core.training.views.resizing import crop_resize, sum_last

BLUR_REACH = 3.0
# Pixels of source and result that a CPU processes at a time. With more, each of about thirty passes would go to memory
# instead of the cache; with fewer, the calls cost more than the work.
CHUNK_PIXELS = 1 << 18
# What some erase with after normalising: the mean colour of ImageNet's pixels, as if it were not normalised.
ERASED: Final = (0.485, 0.456, 0.406)


def make_views(plans: Sequence[ViewPlan], pixels: Tensor, draws: Sequence[DrawTensors]) -> tuple[Tensor, ...]:
    """Every view of every image of a batch, in the order of the plans.

    Args:
        plans: one for each view.
        pixels: (B, H, W, 3), as `make_view` takes them.
        draws: one for each view, of the B images.

    Returns:
        (B, 3, plan.height, plan.width) of each view.
    """
    if is_quick_to_read(pixels):
        return tuple(make_view(plan, pixels, drawn) for plan, drawn in zip(plans, draws, strict=True))
    made: dict[int, Tensor] = {}
    for plan in dict.fromkeys(plans):
        # All views of a plan at once: an accelerator is told what to do as often for eight views as for one.
        own = [view for view, other in enumerate(plans) if other == plan]
        with torch.autocast(pixels.device.type, enabled=False):
            together = _make_view(plan, pixels, join_draws([draws[view] for view in own]))
        made.update(zip(own, together.chunk(len(own)), strict=True))
    return tuple(made[view] for view in range(len(plans)))


def make_view(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    """One view of every image of a batch.

    Args:
        plan: size, constants and filter.
        pixels: (B, H, W, 3) uint8 RGB, images in the top left corner of their slot; pixels outside are not read.
        draws: of the B images, sent to the same device.

    Returns:
        (B, 3, plan.height, plan.width) float32, normalised.
    """
    # A training step may be under autocast when it makes its view; in bfloat16 a pixel has only 8 bits.
    with torch.autocast(pixels.device.type, enabled=False):
        if not is_quick_to_read(pixels):
            return _make_view(plan, pixels, draws)
        count, height, width, _ = pixels.shape
        view = torch.empty(count, 3, plan.height, plan.width)
        chunk = max(1, CHUNK_PIXELS // (height * width + plan.height * plan.width))
        for start in range(0, count, chunk):
            end = min(start + chunk, count)
            view[start:end] = _make_view(plan, pixels[start:end], draws.part(start, end))
        return view


def _make_view(plan: ViewPlan, pixels: Tensor, draws: DrawTensors) -> Tensor:
    """The same for draws of V views of the B images, one view after the other; (V * B, 3, plan.height, plan.width)."""
    view = crop_resize(plan, pixels, draws)
    if plan.jitter.p > 0:
        view = jitter_colours(view, draws.jitter, draws.jitter_order)
    if plan.grey > 0:
        view = grey(view, draws.grey)
    if plan.blur > 0:
        view = blur(view, draws.radius)
    if plan.solarise > 0:
        view = solarise(view, draws.solarise)
    if plan.erase > 0 and plan.erase_fill == "black":
        view = erase(view, draws.erase)
    mean, std = _constants((plan.mean, plan.std), view.device)
    view = view.sub_(mean).div_(std)
    if plan.erase > 0 and plan.erase_fill == "mean":
        view = erase(view, draws.erase)
    if plan.erase > 0 and plan.erase_fill == "constant":
        (colour,) = _constants((ERASED,), view.device)
        view = torch.where(_inside(view, draws.erase), colour, view)
    if plan.erase > 0 and plan.erase_fill == "noise":
        view = fill_noise(view, draws.erase, draws.noise, most=largest_rectangle(plan))
    return view


@lru_cache(maxsize=16)
def _constants(colours: tuple[tuple[float, float, float], ...], device: torch.device) -> tuple[Tensor, ...]:
    """Each colour as (1, 3, 1, 1), sent to a device only once: the host waits for it to arrive."""
    return tuple(torch.tensor(colour, device=device).view(1, 3, 1, 1) for colour in colours)


def blur(view: Tensor, radius: Tensor) -> Tensor:
    """Gaussian blur, edges repeated; in place.

    Args:
        view: (B, 3, H, W).
        radius: (B) standard deviation of each image, on the host; 0 leaves it unchanged.
    """
    reach = _reach(radius) * (radius > 0)
    # Images by the length of their kernels: two thirds of the work of the longest for all. An accelerator would rather
    # do more work than be given more of it.
    length = reach if is_quick_to_read(view) else reach.sign() * reach.max()
    for taps in set(length.tolist()):
        if taps:
            some = pick(length == taps, torch.device("cpu"))
            kernel = _gaussian(radius[some]).to(view.device, non_blocking=True)
            chosen = some.to(view.device, non_blocking=True)
            view.index_copy_(0, chosen, _blur_lines(_blur_lines(view.index_select(0, chosen), kernel, 3), kernel, 2))
    return view


def _reach(radius: Tensor) -> Tensor:
    """(B) taps on either side of the middle one: three standard deviations, at least one tap."""
    return (BLUR_REACH * radius + 0.5).floor_().clamp_(min=1)


def _gaussian(radius: Tensor) -> Tensor:
    """(B, taps) kernels, each cut off at three of its standard deviations and padded with zeros to the widest."""
    reach = _reach(radius)
    widest = int(reach.max())
    step = torch.arange(-widest, widest + 1)
    kernel = torch.exp(-0.5 * (step / radius[:, None]) ** 2) * (step.abs() <= reach[:, None])
    return kernel / sum_last(kernel)


def _blur_lines(view: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Blur along one direction of (B, 3, H, W); lines beyond the edge repeat it."""
    taps, size = kernel.shape[1], view.shape[dim]
    reach = taps // 2
    first, last = (view.narrow(dim, line, 1).repeat_interleave(reach, dim) for line in (0, size - 1))
    padded = torch.cat([first, view, last], dim)  # a tenth of the time of padding
    total = torch.zeros_like(view)
    for tap in range(taps):
        total.addcmul_(padded.narrow(dim, tap, size), kernel[:, tap].view(-1, 1, 1, 1))
    return total


def erase(view: Tensor, rectangle: Tensor) -> Tensor:
    """Sets a rectangle of each image to 0; (B, 4) top, left, height, width."""
    return view.mul_(~_inside(view, rectangle))  # a third of the time of a masked fill


def _inside(view: Tensor, rectangle: Tensor) -> Tensor:
    """Whether pixels are inside a rectangle of their image, (B, 1, H, W); (B, 4) top, left, height, width."""
    row = torch.arange(view.shape[2], device=view.device)
    column = torch.arange(view.shape[3], device=view.device)
    top, left, height, width = rectangle.unbind(1)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
