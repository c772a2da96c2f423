"""Where a network looks in single images."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.retrieval.extract import GROUP, Encoder
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.loading.batches import build_batch
from lupctl.core.training.nets.vit.attention import attention_maps
from lupctl.core.training.views.pixels import make_view


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
        rows = None if cameras is None else cameras[begin : begin + GROUP]
        batch = build_batch(some, encoder.view, cameras=rows).to(encoder.device)
        view = make_view(encoder.view, batch.pixels, batch.views[0])
        with autocast(encoder.device, encoder.precision):
            maps = attention_maps(encoder.network, view, batch.cameras)
        yield from maps.cpu().numpy()
        begin += len(some)
