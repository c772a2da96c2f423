"""Memory that training needs, counted on the meta device without allocating anything.

Plans never change and counting runs the whole network, so every answer is kept: one command asks the same many times.
"""

from functools import cache

from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.meta import build_empty, embed_nothing

FLOAT_BYTES = 4


@cache
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


@cache
def recomputed_bytes(plan: NetworkPlan, *, height: int, width: int) -> int:
    """Bytes of one image if a network's blocks keep only their outputs and one block at a time is recomputed."""
    network = build_empty(plan)
    blocks = network.all_blocks()
    kept, inside, largest = 0, 0, 0

    def count_leaf(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal inside
        if not isinstance(module, nn.ReLU):
            inside += output.numel() * FLOAT_BYTES

    def enter_block(module: nn.Module, inputs: object) -> None:
        nonlocal kept, inside
        kept, inside = kept + inside, 0

    def leave_block(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal kept, inside, largest
        kept, inside, largest = kept + output.numel() * FLOAT_BYTES, 0, max(largest, inside)

    for module in network.modules():
        if module in blocks:
            module.register_forward_pre_hook(enter_block)
            module.register_forward_hook(leave_block)
        elif not list(module.children()):
            module.register_forward_hook(count_leaf)
    embed_nothing(network.eval(), height=height, width=width)
    return kept + inside + largest


@cache
def parameter_bytes(plan: NetworkPlan) -> int:
    """Bytes of a network's parameters and buffers in float32."""
    return sum(value.numel() * FLOAT_BYTES for value in build_empty(plan).state_dict().values())


def count_parameters(plan: NetworkPlan) -> int:
    """Number of a network's parameters, trained or not, without buffers."""
    return sum(value.numel() for value in build_empty(plan).parameters())
