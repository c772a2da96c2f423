"""A checkpoint's network in PyTorch, as a contender."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lupctl.core.formats.weights.header import CheckpointHeader, describe_network, read_header
from lupctl.core.ranking.retrieval.extract import open_encoder
from lupctl.core.stages.bench.model import Subject
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.training.nets.meta import build_empty, embed_nothing
from lupctl.core.training.nets.standalone import StandaloneNetwork

SEED = 0


class TorchRunner:
    """A network as `model export` writes it, pixel constants and normalisation inside, in PyTorch without compiling.

    Args:
        path: its checkpoint.
        device: where it runs.
    """

    only = None

    def __init__(self, path: Path, device: torch.device) -> None:
        encoder, _ = open_encoder(path, device=device, precision=torch.float32)
        row = None if encoder.cameras is None else encoder.cameras.unknown_row
        network = StandaloneNetwork(encoder.network, mean=encoder.view.mean, std=encoder.view.std, camera=row)
        self._network, self._device = network.eval().requires_grad_(False).to(device), device
        self._size = encoder.view.height, encoder.view.width

    def prepare(self, batch: int) -> Callable[[], object]:
        """A pass over uint8 images (B, H, W, 3) on the device."""
        draw = torch.Generator().manual_seed(SEED)
        images = torch.randint(0, 256, (batch, *self._size, 3), dtype=torch.uint8, generator=draw).to(self._device)

        def embed() -> Tensor:
            with torch.inference_mode():
                features: Tensor = self._network(images)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            return features

        return embed


def describe_checkpoint(name: str, path: Path) -> Subject:
    """The network of a checkpoint, counted without its weights.

    Args:
        name: as the user typed it.
        path: the file.
    """
    header = read_header(path)
    view = header.preprocessing
    return Subject(
        name=name,
        path=path,
        fingerprint=file_fingerprint(path),
        description=describe_network(header),
        height=view.height,
        width=view.width,
        parameters=count_parameters(header),
        flops=count_flops(header),
    )


def count_parameters(header: CheckpointHeader) -> int:
    """Parameters without those of classifiers, which no feature depends on."""
    named = build_empty(header.network).named_parameters()
    return sum(value.numel() for name, value in named if "classifier" not in name)


def count_flops(header: CheckpointHeader) -> int:
    """Floating-point operations of one image, by PyTorch's own counter: convolutions and matrix products."""
    network = build_empty(header.network).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        embed_nothing(network, height=header.preprocessing.height, width=header.preprocessing.width)
    return int(counter.get_total_flops())
