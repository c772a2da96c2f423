"""The network that a fine-tuning run learns from besides labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import describe_network, read_header
from lupctl.core.ranking.retrieval.extract import Encoder, open_encoder
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.nets.memory import count_parameters, parameter_bytes
from lupctl.core.training.nets.meta import build_empty
from lupctl.core.training.views.plan import ViewPlan

# Key of its fingerprint among what a run is made from.
TEACHER: Final = "teacher"


@dataclass(frozen=True)
class TeacherPlan:
    """What a teacher adds to a run.

    Args:
        description: of its network.
        parameters: of it.
        height, width: of the images that it is given, one pass for each image of the run.
        bytes: of its weights on each device.
    """

    description: str
    parameters: int
    height: int
    width: int
    bytes: int


def plan_teacher(path: Path, run: Path) -> TeacherPlan:
    """What a teacher costs, read from its header.

    Args:
        path: its checkpoint.
        run: the folder of the run that learns from it.

    Raises:
        UsageError: it takes cameras, or is the run itself.
        DataError, FormatError: there is no such checkpoint.
    """
    header = read_header(path)
    if path.resolve().parent == run.resolve():
        raise UsageError(f"{path}: the run's own checkpoint, which it overwrites", hint="name another run as teacher")
    network = build_empty(header.network)
    if network.needs_cameras:
        raise UsageError(
            f"{path}: {describe_network(header)}: takes the camera of every image, which a teacher is not told",
            hint="name a network without a table of cameras as teacher",
        )
    pixels = header.preprocessing
    return TeacherPlan(
        describe_network(header),
        count_parameters(header.network),
        pixels.height,
        pixels.width,
        parameter_bytes(header.network),
    )


class Teacher:
    """A trained network in evaluation mode, which sees the views of the one that learns.

    Args:
        path: its checkpoint.
        view: how the views were made; they are normalised and resized for the teacher as for its own evaluation.
        device: where it computes.
        precision: type of its forward pass.

    Raises:
        FormatError: the checkpoint is damaged.
    """

    def __init__(self, path: Path, view: ViewPlan, *, device: torch.device, precision: torch.dtype) -> None:
        self._encoder: Encoder = open_encoder(path, device=device, precision=precision)[0]
        theirs = self._encoder.view
        own_mean, own_std, mean, std = (
            torch.tensor(values, device=device, dtype=torch.float32).view(1, 3, 1, 1)
            for values in (view.mean, view.std, theirs.mean, theirs.std)
        )
        # Both constants in one: from one network's pixels to those in [0, 1], and on to the other one's.
        self._scale, self._shift = own_std / std, (own_mean - mean) / std

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) views to its retrieval features (B, T), not normalised, in float32."""
        view = self._encoder.view
        own = pixels.float() * self._scale + self._shift
        if pixels.shape[2:] != (view.height, view.width):
            own = F.interpolate(own, (view.height, view.width), mode=view.interpolation, antialias=True)
        with autocast(pixels.device, self._encoder.precision):
            return self._encoder.embed(own).float()
