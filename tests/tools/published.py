"""A narrow network as a published file has it, with numbers that matter."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.build import build_network
from tests.tools.networks import mgn_heads, plan_network

MEAN, STD = (89.896, 79.200, 80.073), (63.872, 64.305, 63.839)


def shake(network: nn.Module) -> None:
    """Gives every batch norm and power a value that matters, and every branch one of its own."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.2)
        elif name.endswith("pool_layer.p"):
            tensor.uniform_(2, 4)
        elif tensor.dim() == 4:
            tensor.add_(0.1 * tensor.std() * torch.randn_like(tensor))


def published(*, extra_bn: bool = True, classes: int = 5, arch: Any = "r50") -> dict[str, Tensor]:
    """A narrow network in the layout of the published files, with numbers that matter; a copy to be changed."""
    return dict(build_published(extra_bn, classes, arch))


@cache
def build_published(extra_bn: bool, classes: int, arch: Any) -> dict[str, Tensor]:
    torch.manual_seed(4)
    heads = mgn_heads(classes, embedding=256, extra_bn=extra_bn)
    network = build_network(plan_network(heads, arch, last_stride=1, pooling="gem"))
    shake(network)
    pixels = {"pixel_mean": torch.tensor(MEAN).view(1, 3, 1, 1), "pixel_std": torch.tensor(STD).view(1, 3, 1, 1)}
    return {**pixels, **network.state_dict()}
