"""Features of images in memory, as fast as the network's own passes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.retrieval.extract import GROUP, ImageEncoder, embed_batch, embed_batches, parallel_passes
from lupctl.core.training.loading.batches import build_batch
from lupctl.core.training.loading.loaders import Batch

# Images per pass on an accelerator, as in a dump.
CHUNK = 128
# Passes for each thread before more images are taken.
ROUNDS = 4


class Unread(NamedTuple):
    """An image that is read when its turn comes, (H, W, 3) RGB; and how large it is, 0 where that is not known."""

    read: Callable[[], NDArray[np.uint8]]
    size: int = 0


# An image, and its row of the network's table of cameras.
Given = tuple[Unread, int]


def embed_images(encoder: ImageEncoder, images: Iterator[Given], *, flip: bool) -> NDArray[np.float32]:
    """Features of images in their order, (N, D), not normalised; (0, 0) where there are none.

    A CPU computes passes in parallel, each in one thread, and reads the images there, too; a single image has all
    threads to itself. Not many more images are read than are being computed.

    Args:
        encoder: the network.
        images: taken one after the other.
        flip: adds the feature of the mirrored image.
    """
    if encoder.device.type == "cpu":
        parts = list(_embed_in_threads(encoder, images, flip=flip))
    else:
        batches = (_build(encoder, some).to(encoder.device) for some in iter(lambda: list(islice(images, CHUNK)), []))
        parts = [vectors for _, vectors in embed_batches(encoder, batches, flip=flip)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _embed_in_threads(encoder: ImageEncoder, images: Iterator[Given], *, flip: bool) -> Iterator[NDArray[np.float32]]:
    threads = torch.get_num_threads()

    def embed(some: Sequence[Given]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = embed_batch(encoder, _build(encoder, some), flip=flip).numpy()
        return found

    while some := list(islice(images, GROUP * ROUNDS * threads)):
        size = min(GROUP, -(-len(some) // threads))
        # Images of like sizes together: each one of a pass costs as much to resize as the largest.
        order = sorted(range(len(some)), key=lambda at: some[at][0].size)
        groups = [[some[at] for at in order[begin : begin + size]] for begin in range(0, len(order), size)]
        if threads == 1 or len(groups) == 1:
            parts = list(map(embed, groups))
        else:
            with parallel_passes() as pool:
                parts = list(pool.map(embed, groups))
        yield np.concatenate(parts)[np.argsort(order)]


def _build(encoder: ImageEncoder, some: Sequence[Given]) -> Batch:
    rows = None if encoder.cameras is None else np.array([row for _, row in some], np.int64)
    return build_batch([image.read() for image, _ in some], encoder.view, cameras=rows)
