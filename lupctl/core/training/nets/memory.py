"""Memory that training needs, counted on the meta device without allocating anything."""

import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.build import build_network

FLOAT_BYTES = 4


def activation_bytes(plan: NetworkPlan, *, height: int, width: int) -> int:
    """Bytes of the layer outputs of one image, which a backward pass keeps in float32."""
    with torch.device("meta"):
        network = build_network(plan)
        image = torch.empty(1, 3, height, width)
    total = 0

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal total
        # An in-place ReLU overwrites the output of batch norm; it adds nothing.
        if not isinstance(module, nn.ReLU):
            total += output.numel() * FLOAT_BYTES

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    network.eval()
    network.embed(image)
    return total


def parameter_bytes(plan: NetworkPlan) -> int:
    """Bytes of a network's parameters and buffers in float32."""
    with torch.device("meta"):
        network = build_network(plan)
    return sum(value.numel() * FLOAT_BYTES for value in network.state_dict().values())
