"""A network in ONNX or OpenVINO's format, in the place of one of ours: a runtime computes its features on the CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.formats.weights.onnx import CAMERAS, Inputs
from lupctl.core.formats.weights.runtimes.images import ImageInput
from lupctl.core.formats.weights.runtimes.session import Session
from lupctl.core.ranking.retrieval.cameras import CameraTable
from lupctl.core.recipes.sections import Colour
from lupctl.core.training.views.plan import ViewPlan


@dataclass(frozen=True)
class OnnxEncoder:
    """A network that a runtime has open, ready to give features, and how its input is prepared.

    Args:
        session: has one output.
        images: its input.
        view: the resize alone, to pixels from 0 to 1.
        mean, std: of RGB in [0, 1]; of an input of uint8, which has its own inside, 0 and 1.
        cameras: if it has a second input for their rows.
    """

    session: Session
    images: ImageInput
    view: ViewPlan
    mean: Colour
    std: Colour
    cameras: CameraTable | None = None

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def precision(self) -> torch.dtype:
        """Of what the view makes; the network has its own."""
        return torch.float32

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) as the view makes them, and rows of cameras (B), to features (B, D) as the network gives them.

        Raises:
            ValueError: it does not give a row for each image.
        """
        parts = []
        for given, count in self.prepare(images, cameras):
            (features,) = self.session.run(given)
            rows = len(given[self.images.name])
            if len(features) != rows:
                raise ValueError(f"{len(features)} rows for {rows} images")
            parts.append(features.reshape(rows, -1)[:count])
        return torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False))

    def prepare(self, images: Tensor, cameras: Tensor | None = None) -> Iterator[tuple[Inputs, int]]:
        """The inputs of each run for images, and how many of its rows are theirs.

        Pixels are rounded to whole grey levels, as other programs do when they have resized; ours does not.

        Args:
            images, cameras: as `embed` takes them.
        """
        pixels = np.rint(255 * images.numpy())
        if self.images.kind != "uint8":
            mean, std = (np.array(colour, np.float32)[:, None, None] for colour in (self.mean, self.std))
            pixels = (pixels / 255 - mean) / std
        if self.images.layout == "NHWC":
            pixels = pixels.transpose(0, 2, 3, 1)
        pixels = np.ascontiguousarray(pixels, self.images.kind)
        step = self.images.batch or len(pixels)
        for begin in range(0, len(pixels), step):
            given = {self.images.name: _fill(pixels[begin : begin + step], step)}
            if cameras is not None:
                given[CAMERAS] = _fill(cameras.numpy()[begin : begin + step], step)
            yield given, min(step, len(pixels) - begin)


def _fill(some: NDArray[Any], count: int) -> NDArray[Any]:
    """As many rows as there have to be: the last one again where some are missing."""
    missing = count - len(some)
    return some if not missing else np.concatenate([some, np.repeat(some[-1:], missing, axis=0)])
