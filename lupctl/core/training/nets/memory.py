"""Memory that training needs, counted on the meta device without allocating anything."""

from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.meta import build_empty, embed_nothing

FLOAT_BYTES = 4


def activation_bytes(plan: NetworkPlan, *, height: int, width: int) -> int:
    """Bytes of the layer outputs of one image, which a backward pass keeps in float32."""
    network = build_empty(plan)
    total = 0

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal total
        # An in-place ReLU overwrites the output of batch norm; it adds nothing.
        if not isinstance(module, nn.ReLU):
            total += output.numel() * FLOAT_BYTES

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    embed_nothing(network.eval(), height=height, width=width)
    return total


def parameter_bytes(plan: NetworkPlan) -> int:
    """Bytes of a network's parameters and buffers in float32."""
    return sum(value.numel() * FLOAT_BYTES for value in build_empty(plan).state_dict().values())
