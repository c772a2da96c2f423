"""Where a network looks in single images."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.retrieval.extract import GROUP, Encoder
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.nets.vit.attention import attention_maps
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import draw_views


def look_at(
    encoder: Encoder, images: Iterable[NDArray[np.uint8]], cameras: NDArray[np.int64] | None
) -> Iterator[NDArray[np.float32]]:
    """The attention of the class token over each image, computed like the image's feature.

    Args:
        encoder: of a vision transformer.
        images: (H, W, 3) RGB each, of any sizes; `GROUP` of them are held at a time.
        cameras: rows of the network's table of cameras, (N), if it has one.

    Yields:
        (h, w) for each, over the grid of patches.
    """
    waiting, begin = iter(images), 0
    while some := list(islice(waiting, GROUP)):
        size = np.array([image.shape[:2] for image in some], dtype=np.int64)
        pixels = np.zeros((len(some), *size.max(axis=0), 3), dtype=np.uint8)
        for slot, image in zip(pixels, some, strict=True):
            slot[: image.shape[0], : image.shape[1]] = image
        (draws,) = draw_views([encoder.view], size, np.arange(len(some)), seed=0, epoch=0)
        view = make_view(encoder.view, torch.from_numpy(pixels).to(encoder.device), draws.tensors().to(encoder.device))
        rows = None if cameras is None else torch.from_numpy(cameras[begin : begin + GROUP]).to(encoder.device)
        with autocast(encoder.device, encoder.precision):
            maps = attention_maps(encoder.network, view, rows)
        yield from maps.cpu().numpy()
        begin += len(some)
