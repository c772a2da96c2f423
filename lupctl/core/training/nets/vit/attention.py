"""What the class token of a vision transformer attends to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lupctl.core.training.nets.build import Network
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.vit.blocks import Block
from lupctl.core.training.nets.vit.trunk import ViTTrunk


def class_attention(queries: Tensor, keys: Tensor, *, scale: float | None) -> Tensor:
    """Attention weights of the first token, mean over heads; the fused kernel that a network runs returns none.

    Args:
        queries, keys: (B, heads, T, D / heads) of one block.
        scale: factor on their products; None for the inverse root of a head's length.

    Returns:
        (B, T) float32; each row sums to 1.
    """
    factor = queries.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(queries.device.type, enabled=False):
        products = queries[:, :, 0, None].float() @ keys.float().transpose(2, 3)  # (B, heads, 1, T)
        return (products * factor).softmax(dim=-1).mean(dim=1)[:, 0]


def class_trunk(network: Network) -> ViTTrunk | None:
    """The trunk of a network whose features are a class token's; None for others."""
    return network.backbone if isinstance(network.backbone, ViTTrunk) else None


@torch.no_grad()
def attention_maps(network: Network, images: Tensor, cameras: Tensor | None = None) -> Tensor:
    """Where the class token looks in the last block, as the network computes it for these images.

    Of a jpm's blocks, that is the one that sees all patches in their own order.

    Args:
        network: with a class token, see `class_trunk`; in evaluation mode.
        images: (B, 3, H, W), normalised.
        cameras: as `embed` takes them.

    Returns:
        (B, h, w) float32 over the grid of patches. A map's sum is at most 1; the rest is on the class token itself and
        on part tokens.
    """
    trunk = class_trunk(network)
    assert trunk is not None, "no class token"
    block = network.head.b1[0] if isinstance(network, JpmNetwork) else trunk.blocks[-1]
    assert isinstance(block, Block)
    with _inputs_of(block.attn.core) as seen:
        network.embed(images, cameras)
    ((queries, keys),) = seen
    weights = class_attention(queries, keys, scale=block.attn.core.scale)
    rows, columns = trunk.plan.grid(images.shape[2], images.shape[3])
    return weights[:, trunk.num_special :].reshape(-1, rows, columns)


@contextmanager
def _inputs_of(attention: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects the queries and keys that a block's attention is given."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = attention.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
    try:
        yield seen
    finally:
        handle.remove()
