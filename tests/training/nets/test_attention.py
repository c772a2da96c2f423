"""Where the class token looks: against loops, and where it has to look."""

import math

import pytest
import torch
from torch import Tensor

from lupctl.core.formats.weights.plan import NoHead
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.vit.attention import attention_maps, class_attention
from lupctl.core.training.nets.vit.blocks import Block
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.transformers import HEIGHT, WIDTH, fill, plan_transformer, transformer_plans


def slow_attention(block: Block, tokens: Tensor, scale: float | None) -> Tensor:
    """(B, T, D), what a block takes, to the weights of the first token (B, T), head by head and token by token."""
    batch, count, dim = tokens.shape
    heads = block.attn.heads
    length = dim // heads
    rows = block.attn.qkv(block.norm1(tokens)).double()
    found = torch.zeros(batch, count, dtype=torch.float64)
    for image in range(batch):
        for head in range(heads):
            query = rows[image, 0, head * length : (head + 1) * length]
            powers = []
            for token in range(count):
                key = rows[image, token, dim + head * length : dim + (head + 1) * length]
                powers.append(math.exp(float(query @ key) * (length**-0.5 if scale is None else scale)))
            found[image] += torch.tensor(powers, dtype=torch.float64) / sum(powers) / heads
    return found


@pytest.mark.parametrize("kind", transformer_plans())
@torch.no_grad()
def test_maps_are_the_weights_of_the_last_block(kind: str) -> None:
    plan = transformer_plans()[kind]
    torch.manual_seed(1)
    network = build_network(plan).eval()
    fill(network)
    trunk = network.backbone
    assert isinstance(trunk, ViTTrunk)
    images = torch.rand(3, 3, HEIGHT, WIDTH)
    cameras = torch.tensor([0, 2, -1]) if trunk.needs_cameras else None
    is_jpm = isinstance(network, JpmNetwork)
    block = network.head.b1[0] if is_jpm else trunk.blocks[-1]  # type: ignore[union-attr, index]
    assert isinstance(block, Block)
    given: list[Tensor] = []
    handle = block.norm1.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    wanted_feature = network.embed(images, cameras)
    handle.remove()
    (tokens,) = given
    maps = attention_maps(network, images, cameras)
    rows, columns = trunk.plan.grid(HEIGHT, WIDTH)
    assert maps.shape == (3, rows, columns)
    wanted = slow_attention(block, tokens, trunk.plan.qk_scale)
    special = 1 + trunk.plan.parts
    assert wanted.sum(dim=1) == pytest.approx([1, 1, 1])
    assert (maps.flatten(1) - wanted[:, special:]).abs().max() < 1e-6
    assert maps.flatten(1).sum(dim=1) + wanted[:, :special].sum(dim=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert maps.std(dim=(1, 2)).min() > 1e-3, "not even, so that a wrong order would show"
    assert torch.equal(network.embed(images, cameras), wanted_feature), "nothing stays behind"


@torch.no_grad()
def test_the_fused_kernel_has_these_weights() -> None:
    queries, keys, values = torch.randn(3, 2, 1, 7, 5, generator=torch.manual_seed(0))
    for scale in (None, 0.7):
        mixed = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scale)
        weights = class_attention(queries, keys, scale=scale)
        assert torch.allclose((weights[:, None] @ values[:, 0])[:, 0], mixed[:, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 3), (5, 1), (7, 2)])
@torch.no_grad()
def test_a_token_that_looks_for_brightness_finds_the_bright_patch(row: int, column: int) -> None:
    network = build_network(plan_transformer(NoHead(kind="none"), dim=2, heads=1, hidden=2, depth=1)).eval()
    for value in network.parameters():
        value.zero_()
    trunk = network.backbone
    assert isinstance(trunk, ViTTrunk)
    block = trunk.blocks[0]
    assert isinstance(block, Block)
    assert trunk.patch_embed.proj.bias is not None
    trunk.patch_embed.proj.weight[0] = 1.0  # brightness
    trunk.patch_embed.proj.bias[1] = 1.0
    block.norm1.weight.fill_(1.0)
    block.attn.qkv.bias[0] = 5.0  # every query asks for the first number of a key
    block.attn.qkv.weight[2, 0] = 1.0
    images = torch.zeros(1, 3, HEIGHT, WIDTH)
    images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1.0
    (found,) = attention_maps(network, images)
    assert divmod(int(found.argmax()), found.shape[1]) == (row, column)
    assert found.max() > 10 * found.flatten().kthvalue(found.numel() - 1).values


def test_bfloat16_looks_at_the_same_places() -> None:
    torch.manual_seed(2)
    network = build_network(transformer_plans()["before"]).eval()
    fill(network)
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    exact = attention_maps(network, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = attention_maps(network, images)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.1 * exact.max()
