"""Small vision transformers that take cameras, untrained, and their checkpoints."""

from pathlib import Path

import torch

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, PackReference, describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import Network, build_network
from tests.tools.networks import make_header, neck, tiny_vit


def plan_camera_network(cameras: int, *, unknown: bool = False) -> NetworkPlan:
    """Two blocks of dim 16 for images of 32 x 16 pixels, with a table of cameras if there are two or more."""
    trunk = tiny_vit(patch=8, stride=8, cameras=cameras, unknown_camera=unknown)
    return NetworkPlan(trunk=trunk, pooling="token", head=neck(2))


def camera_header(
    cameras: tuple[int | str, ...], *, rows: int = 3, unknown: bool = False, datasets: tuple[str, ...] = ("labelled",)
) -> CheckpointHeader:
    """Of such a network, trained on these cameras of these datasets."""
    data = tuple(
        PackReference(dataset=name, fingerprint="sha256:0", images=1, source=None, terms=None) for name in datasets
    )
    pixels = describe_pixels(Pixels(height=32, width=16))
    return make_header(plan_camera_network(rows, unknown=unknown), preprocessing=pixels, cameras=cameras, data=data)


def write_camera_network(path: Path, header: CheckpointHeader, *, seed: int = 5) -> Network:
    """A checkpoint whose rows of cameras differ strongly; returns its network in evaluation mode."""
    torch.manual_seed(seed)
    network = build_network(header.network).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "sie_" in name:
                value.normal_()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, network.state_dict(), header)
    return network
