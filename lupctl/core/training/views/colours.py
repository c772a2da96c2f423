"""What a view does to colours: jitter, grey, and solarise, each for the images that were drawn for it.

Which images those are is read on the host, where the draws are made, so that no step waits for an accelerator. Masks
are numbers here and not booleans, and nothing is selected by condition: on a CPU that takes a twentieth of the time.
"""

import torch
from torch import Tensor

from lupctl.core.training.views.host import pick

# Rec. 601 luma as in Pillow; torchvision's tensor operations weigh red by 0.2989.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def luma(view: Tensor) -> Tensor:
    """(B, 1, H, W) grey value of (B, 3, H, W)."""
    red, green, blue = (channel * weight for channel, weight in zip(view.chunk(3, dim=1), GREY_WEIGHTS, strict=True))
    return red.add_(green).add_(blue)


def grey(view: Tensor, wanted: Tensor) -> Tensor:
    """Removes the colour of the wanted images, (B) bool on the host; in place."""
    chosen = pick(wanted, view.device)
    return view.index_copy_(0, chosen, luma(view.index_select(0, chosen)).expand(-1, 3, -1, -1))


def solarise(view: Tensor, wanted: Tensor) -> Tensor:
    """Inverts the numbers from a half on in the wanted images, (B) bool on the host; in place.

    Pillow's `ImageOps.solarize` inverts the levels from 128 to 255; the numbers from a half on are nearest to those.
    """
    chosen = pick(wanted, view.device)
    levels = view.index_select(0, chosen)
    return view.index_copy_(0, chosen, torch.minimum(levels, 1 - levels))


def jitter_colours(view: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue with each image's own factors in its own order.

    Args:
        view: (B, 3, H, W) in [0, 1].
        factors: (B, 4) brightness, contrast, saturation factors, hue shift in turns; on the device of the view.
        order: (B, 4) operation per slot, -1 for none; on the host.
    """
    operations = (_change_brightness, _change_contrast, _change_saturation, _shift_hue)
    places = torch.arange(len(view))
    for slot in range(4):
        # Images with the same operation side by side: one copy for all of them, and each operation works in place.
        operation, moved = order[places, slot].sort(stable=True)
        places = places[moved]
        view = view.index_select(0, moved.to(view.device, non_blocking=True))
        own = factors.index_select(0, places.to(view.device, non_blocking=True))
        start, *counts = torch.bincount(operation + 1, minlength=1 + len(operations)).tolist()
        for number, count in enumerate(counts):
            some = slice(start, start + count)
            if count:
                operations[number](view[some], own[some, number].view(-1, 1, 1, 1))
            start += count
    return view.index_select(0, places.argsort().to(view.device, non_blocking=True))


def _blend_with(view: Tensor, other: Tensor, share: Tensor) -> None:
    view.mul_(share).add_((1 - share) * other).clamp_(0, 1)


def _change_brightness(view: Tensor, factor: Tensor) -> None:
    view.mul_(factor).clamp_(0, 1)


def _change_contrast(view: Tensor, factor: Tensor) -> None:
    # In double precision: the pieces in which a mean is computed depend on the number of images and of threads.
    _blend_with(view, luma(view).mean(dim=(2, 3), keepdim=True, dtype=torch.double).float(), factor)


def _change_saturation(view: Tensor, factor: Tensor) -> None:
    _blend_with(view, luma(view), factor)


def _shift_hue(view: Tensor, turns: Tensor) -> None:
    """Shifts the hue of HSV by `turns`, saturation and value kept.

    The hue is counted in sixths of a turn: x from red, where red is greatest, 2 + x where green is, and 4 + x where
    blue is, with x the difference of the other two over their distance from the greatest.
    """
    red, green, blue = view.chunk(3, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red = torch.eq(value, red, out=torch.empty_like(value))
    is_green = torch.eq(value, green, out=torch.empty_like(value)).mul_(1 - is_red)
    is_blue = (1 - is_red).sub_(is_green)
    hue = (green - blue).mul_(is_red).add_((blue - red).mul_(is_green)).add_((red - green).mul_(is_blue))
    hue.div_(chroma.clamp(min=1e-12))
    whole = torch.lt(hue, 0, out=torch.empty_like(hue)).mul_(is_red).mul_(6)
    hue.add_(whole.add_(is_green, alpha=2).add_(is_blue, alpha=4)).add_(6 * turns)
    hue.sub_((hue / 6).floor_(), alpha=6)
    # Of red, green and blue, k sixths from where each begins to rise: min(k, 4 - k) within 0 and 1, for k below 6.
    share_of_red = (hue + 5).sub_(8).abs_().neg_().add_(2)
    share_of_green = (hue + 3).sub_(5).abs_().sub_(1)
    share_of_blue = hue.add_(1).sub_(5).abs_().sub_(1)
    for channel, share in ((red, share_of_red), (green, share_of_green), (blue, share_of_blue)):
        torch.sub(value, share.clamp_(0, 1).mul_(chroma), out=channel)
