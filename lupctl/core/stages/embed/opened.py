"""A network that is open, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lupctl.core.formats.weights.header import describe_network
from lupctl.core.ranking.retrieval.extract import ImageEncoder, open_encoder
from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels, open_onnx
from lupctl.core.system.jobs.precision import pick_precision
from lupctl.core.training.nets.meta import build_empty, embed_nothing


@dataclass(frozen=True)
class Opened:
    """A network that is open.

    Args:
        path: the file.
        encoder: gives features.
        fingerprint: of the checkpoint that made it, or of the file if there is none.
        description: of the network.
        dimension: of a feature.
        trained_on: names of the datasets, as far as they are known.
        is_unit: whether it gives features of length 1, so that those of mirrored images cannot be added as in a dump.
    """

    path: Path
    encoder: ImageEncoder
    fingerprint: str
    description: str
    dimension: int
    trained_on: tuple[str, ...]
    is_unit: bool = False


def open_checkpoint(path: Path, device: torch.device) -> Opened:
    """The network of a checkpoint, as `dump` opens it.

    Raises:
        DataError: there is no such file.
        FormatError: the file is damaged, or its tensors are not those of the network it describes.
    """
    encoder, checkpoint = open_encoder(path, device=device, precision=pick_precision("auto", device))
    header, pixels = checkpoint.header, checkpoint.header.preprocessing
    # The shape of a feature is computed without memory, so that a network of 256 x 128 loads as fast as it reads.
    empty = build_empty(header.network).eval()
    return Opened(
        path=path,
        encoder=encoder,
        fingerprint=checkpoint.fingerprint,
        description=describe_network(header),
        dimension=embed_nothing(empty, height=pixels.height, width=pixels.width).shape[1],
        trained_on=tuple(pack.dataset for pack in header.data),
    )


def open_exported(path: Path, foreign: ForeignPixels) -> Opened:
    """A network in ONNX or OpenVINO's format: one that `model export` wrote, or that of another program.

    Raises:
        UsageError, DataError, FormatError: as `open_onnx`.
    """
    found = open_onnx(path, foreign)
    return Opened(
        path=path,
        encoder=found.encoder,
        fingerprint=found.fingerprint,
        description=found.description,
        dimension=found.dimension,
        trained_on=found.trained_on,
        is_unit=found.is_unit,
    )
