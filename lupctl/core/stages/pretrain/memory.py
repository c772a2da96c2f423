"""Memory of a pre-training step on one device, counted without allocating anything."""

import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import MethodSettings, MocoSettings
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.memory import activation_bytes, parameter_bytes

FLOAT_BYTES = 4


def estimate_memory(recipe: PretrainRecipe, net: NetworkPlan, *, processes: int, parts: int, is_half: bool) -> int:
    """Bytes on one device: two networks, gradient, optimizer, views, activations of one part, state of the method.

    Args:
        recipe: resolved.
        net: the network it describes.
        processes: number of devices.
        parts: number of parts of a device's share of a batch; one is in memory at a time.
        is_half: whether activations are kept in 16 bits.
    """
    height, width = recipe.pixels.height, recipe.pixels.width
    local = recipe.data.batch // processes
    moments = 2 if recipe.optim.name in ("adam", "adamw") else 1
    # Query and key encoder, gradient, optimizer state; sums over parts in double precision; messages.
    copies = 3 + moments + (2 if parts > 1 else 0) + (1 if processes > 1 else 0)
    weights = copies * parameter_bytes(net)
    # Pixels of both views, and the keys' views again in shuffled order.
    views = 3 * local * 3 * height * width * FLOAT_BYTES
    if recipe.net.checkpoint_activations:
        image = recomputed_bytes(net, height=height, width=width)
    else:
        image = activation_bytes(net, height=height, width=width)
    activations = local // parts * image // (2 if is_half else 1)
    return weights + views + activations + method_bytes(recipe.settings, local // parts)


def method_bytes(settings: MethodSettings, images: int) -> int:
    """Bytes that a method keeps in addition to its networks, and that its loss needs.

    Args:
        settings: the method's section.
        images: number of images in one part.
    """
    match settings:
        case MocoSettings():
            queue = settings.dim * settings.queue * FLOAT_BYTES
            # Logits, their softmax and the gradient of one part.
            return queue + 3 * images * (1 + settings.queue) * FLOAT_BYTES


def recomputed_bytes(plan: NetworkPlan, *, height: int, width: int) -> int:
    """Bytes of one image if a trunk's blocks keep only their outputs and one block at a time is recomputed."""
    with torch.device("meta"):
        network = build_contrastive(plan)
        image = torch.empty(1, 3, height, width)
    blocks = network.backbone.blocks()
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
    network.eval()
    network.embed(image)
    return kept + inside + largest
