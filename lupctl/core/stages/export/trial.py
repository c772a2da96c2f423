"""Random images that an exported network is tried on, and the features that it has to give."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from lupctl.core.formats.weights.onnx import CAMERAS, INPUT, Inputs
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.stages.export.cameras import GivenCamera
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import draw_views

SEED: Final = 0


def draw_batches(encoder: Encoder, given: GivenCamera | None) -> list[Inputs]:
    """A few images of random pixels, the same in every run, in batches of two sizes, with rows if it takes any."""
    random = np.random.default_rng(SEED)
    size = (encoder.view.height, encoder.view.width, 3)
    rows = [] if given is None or given.row is not None else given.tried_rows()
    batches: list[Inputs] = []
    for count in (1, max(3, len(rows))):
        batch: Inputs = {INPUT: random.integers(0, 256, (count, *size), dtype=np.uint8)}
        if rows:
            batch[CAMERAS] = np.resize(np.array(rows, dtype=np.int64), count)
        batches.append(batch)
    return batches


@torch.no_grad()
def embed_units(encoder: Encoder, batch: Inputs, given: GivenCamera | None) -> NDArray[np.float32]:
    """Features as `lupctl dump` computes them, divided by their length: (B, H, W, 3) to (B, D)."""
    images = batch[INPUT]
    count = len(images)
    size = np.full((count, 2), images.shape[1:3], dtype=np.int64)
    (draws,) = draw_views([encoder.view], size, np.arange(count), seed=SEED, epoch=0)
    rows = None if given is None else torch.from_numpy(batch.get(CAMERAS, np.full(count, given.row)))
    view = make_view(encoder.view, torch.from_numpy(images), draws.tensors())
    units: NDArray[np.float32] = normalize(encoder.network.embed(view, rows).float(), dim=1).numpy()
    return units


def largest_difference(found: list[NDArray[np.float32]], wanted: list[NDArray[np.float32]]) -> float:
    """Largest absolute difference over all values of all features; NaN if any value is NaN."""
    return float(np.abs(np.concatenate(found) - np.concatenate(wanted)).max())
