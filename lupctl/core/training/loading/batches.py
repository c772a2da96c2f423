"""Batches of images that are in memory already."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.loading.slots import WorkerSlots, stack_images
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.plan import ViewPlan, draw_view


def build_batch(
    images: Sequence[NDArray[np.uint8]], plan: ViewPlan, *, cameras: NDArray[np.int64] | None = None
) -> Batch:
    """A batch for evaluation, on the CPU; each image is copied once, into the batch.

    Args:
        images: (H, W, 3) RGB each, of any sizes; at least one.
        plan: resize and normalisation; nothing random.
        cameras: (B) rows of the network's camera table, for a network that takes them.
    """
    rows = np.arange(len(images))
    height, width = np.array([image.shape[:2] for image in images]).max(axis=0).tolist()
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images), bound=(height, width))
    return Batch(
        pixels=pixels,
        rows=torch.from_numpy(rows),
        keys=torch.from_numpy(rows),
        views=(draw_view(plan, size, SampleDraws(rows, seed=0, epoch=0, view=0)).tensors(),),
        cameras=None if cameras is None else torch.from_numpy(cameras),
    )
