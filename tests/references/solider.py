"""SOLIDER's Swin as its definitions say, from the tensors of a published file alone, and the layouts of its files.

Slow and plain: one window, one head and one pair of tokens at a time. Numbers have the type of the tensors, so that
float64 gives a reference without rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

State = dict[str, Tensor]
Layout = dict[str, tuple[int, ...]]

EPS = 1e-5
WINDOW, SHIFT = 7, 3


@dataclass(frozen=True)
class Sizes:
    """Numbers of a Swin: channels of the first stage, blocks and heads of the four."""

    dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


TINY = Sizes(96, (2, 2, 6, 2), (3, 6, 12, 24))
SMALL = Sizes(96, (2, 2, 18, 2), (3, 6, 12, 24))
BASE = Sizes(128, (2, 2, 18, 2), (4, 8, 16, 32))
# For tests that run it: as short as it may be, and narrow.
SHORT = Sizes(32, (2, 2, 2, 2), (1, 2, 4, 8))


# Layers


def layer_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + EPS).sqrt()
    return centred / spread * state[f"{prefix}.weight"] + state[f"{prefix}.bias"]


def linear(state: State, prefix: str, x: Tensor) -> Tensor:
    out = x @ state[f"{prefix}.weight"].T
    return out + state[f"{prefix}.bias"] if f"{prefix}.bias" in state else out


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


@cache
def table_rows() -> Tensor:
    """(49, 49): the row of a table says how far the first token of a pair is below and to the right of the second."""
    rows = torch.empty(WINDOW**2, WINDOW**2, dtype=torch.int64)
    for one in range(WINDOW**2):
        for other in range(WINDOW**2):
            down = one // WINDOW - other // WINDOW + WINDOW - 1
            across = one % WINDOW - other % WINDOW + WINDOW - 1
            rows[one, other] = down * (2 * WINDOW - 1) + across
    return rows


def window_attention(state: State, prefix: str, x: Tensor, heads: int, hidden: Tensor) -> Tensor:
    """(B, 49, C) of the same window of several images, one head at a time.

    Args:
        hidden: (49, 49) bool, pairs that get -100.
    """
    dim = x.shape[-1]
    size = dim // heads
    queries, keys, values = linear(state, f"{prefix}.qkv", x).split(dim, dim=-1)
    biases = state[f"{prefix}.relative_position_bias_table"][table_rows()].permute(2, 0, 1)
    outputs = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        products = queries[..., own] @ keys[..., own].transpose(1, 2) * size**-0.5
        products = products + biases[head] - 100.0 * hidden
        outputs.append(products.softmax(dim=-1) @ values[..., own])
    return linear(state, f"{prefix}.proj", torch.cat(outputs, dim=-1))


def band(place: int, length: int) -> int:
    """Which band of a shifted side a place is in: before the last window, its first part, what came around."""
    if place < length - WINDOW:
        return 0
    return 1 if place < length - SHIFT else 2


def shifted_attention(state: State, prefix: str, x: Tensor, heads: int, shift: int) -> Tensor:
    """(B, h, w, C): padded with zeros to whole windows, which take their tokens from further on, and give them back."""
    _, rows, columns, channels = x.shape
    height, width = (math.ceil(length / WINDOW) * WINDOW for length in (rows, columns))
    padded = torch.zeros(len(x), height, width, channels, dtype=x.dtype)
    padded[:, :rows, :columns] = x
    out = torch.empty_like(padded)
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            places = [(row, column) for row in range(top, top + WINDOW) for column in range(left, left + WINDOW)]
            down, across = ([(place[axis] + shift) % (height, width)[axis] for place in places] for axis in (0, 1))
            region = torch.tensor(
                [3 * band(row, height) + band(column, width) if shift else 0 for row, column in places]
            )
            hidden = region[:, None] != region[None, :]
            out[:, down, across] = window_attention(state, f"{prefix}.w_msa", padded[:, down, across], heads, hidden)
    return out[:, :rows, :columns]


def block(state: State, prefix: str, x: Tensor, heads: int, shift: int) -> Tensor:
    x = x + shifted_attention(state, f"{prefix}.attn", layer_norm(state, f"{prefix}.norm1", x), heads, shift)
    hidden = gelu(linear(state, f"{prefix}.ffn.layers.0.0", layer_norm(state, f"{prefix}.norm2", x)))
    return x + linear(state, f"{prefix}.ffn.layers.1", hidden)


def merge(state: State, prefix: str, x: Tensor) -> Tensor:
    """For each channel the four neighbours in a row: above left, above right, below left, below right."""
    batch, rows, columns, channels = x.shape
    padded = torch.zeros(batch, rows + rows % 2, columns + columns % 2, channels, dtype=x.dtype)
    padded[:, :rows, :columns] = x
    joined = torch.empty(batch, padded.shape[1] // 2, padded.shape[2] // 2, 4 * channels, dtype=x.dtype)
    for number, (down, across) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        joined[..., number::4] = padded[:, down::2, across::2]
    return linear(state, f"{prefix}.reduction", layer_norm(state, f"{prefix}.norm", joined))


def embed_patches(state: State, prefix: str, images: Tensor) -> Tensor:
    """(B, h, w, C) of patches of 4 x 4 side by side; both sides of the image are multiples of 4."""
    weight, bias = state[f"{prefix}.projection.weight"].flatten(1), state[f"{prefix}.projection.bias"]
    rows = [
        torch.stack(
            [images[:, :, y : y + 4, x : x + 4].flatten(1) @ weight.T + bias for x in range(0, images.shape[3], 4)], 1
        )
        for y in range(0, images.shape[2], 4)
    ]
    return layer_norm(state, f"{prefix}.norm", torch.stack(rows, dim=1))


def control(state: State, prefix: str, stage: int, x: Tensor, weights: Tensor) -> Tensor:
    """Each image scaled and shifted by channel as its semantic weight says; (B) weights."""
    given = torch.stack([weights, 1 - weights], dim=1)
    scale = linear(state, f"{prefix}semantic_embed_w.{stage}", given)
    scale = torch.log1p(torch.exp(-scale.abs())) + scale.clamp(min=0)  # softplus
    shift = linear(state, f"{prefix}semantic_embed_b.{stage}", given)
    return x * scale[:, None, None] + shift[:, None, None]


# The network


def slow_maps(
    state: State, images: Tensor, heads: Sequence[int], *, prefix: str = "", weights: Tensor | None = None
) -> list[Tensor]:
    """The four maps (B, h, w, C), each before merging and controller; the last one after its norm.

    Args:
        state: in the keys of the file.
        images: (B, 3, H, W).
        heads: of the stages.
        prefix: of the trunk's keys.
        weights: (B) semantic weights; None for a file without controller.
    """
    x, maps = embed_patches(state, f"{prefix}patch_embed", images), []
    for stage, count in enumerate(heads):
        start = f"{prefix}stages.{stage}."
        depth = len(
            {key.removeprefix(f"{start}blocks.").partition(".")[0] for key in state if f"{start}blocks." in key}
        )
        for number in range(depth):
            x = block(state, f"{start}blocks.{number}", x, count, SHIFT if number % 2 else 0)
        maps.append(x)
        if stage < 3:
            x = merge(state, f"{start}downsample", x)
        if weights is not None:
            x = control(state, prefix, stage, x, weights)
    maps[3] = layer_norm(state, f"{prefix}norm3", maps[3])
    return maps


def slow_feature(
    state: State, images: Tensor, heads: Sequence[int], *, prefix: str = "base.", weights: Tensor | None = None
) -> Tensor:
    """(B, C), the mean of the last map: the retrieval feature of a fine-tuned file, before the neck."""
    return slow_maps(state, images, heads, prefix=prefix, weights=weights)[3].mean(dim=(1, 2))


def slow_resized_table(table: Tensor, side: int) -> Tensor:
    """A table of biases for windows of another side: bicubic, centres at (i + 0.5) * old / new - 0.5."""
    old, new = round(len(table) ** 0.5), 2 * side - 1
    matrix = bicubic_weights(old, new)
    square = table.double().reshape(old, old, -1)
    return torch.einsum("ih,jw,hwd->ijd", matrix, matrix, square).reshape(new * new, -1).to(table.dtype)


def bicubic_weights(source: int, target: int) -> Tensor:
    """(target, source): four taps of Keys' kernel with a = -0.75; those outside repeat the border."""

    def kernel(distance: float) -> float:
        a, x = -0.75, abs(distance)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        at = (row + 0.5) * source / target - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[row, min(max(tap, 0), source - 1)] += kernel(at - tap)
    return weights


# Layouts


def norm_layout(prefix: str, channels: int) -> Layout:
    return {f"{prefix}.weight": (channels,), f"{prefix}.bias": (channels,)}


def linear_layout(prefix: str, outputs: int, inputs: int) -> Layout:
    return {f"{prefix}.weight": (outputs, inputs), f"{prefix}.bias": (outputs,)}


def trunk_layout(prefix: str, sizes: Sizes, *, controller: bool = True) -> Layout:
    """A trunk with everything that published files have, in their order."""
    layout: Layout = {f"{prefix}patch_embed.projection.weight": (sizes.dim, 3, 4, 4)}
    layout[f"{prefix}patch_embed.projection.bias"] = (sizes.dim,)
    layout |= norm_layout(f"{prefix}patch_embed.norm", sizes.dim)
    for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
        dim = sizes.dim * 2**stage
        for number in range(depth):
            start = f"{prefix}stages.{stage}.blocks.{number}"
            layout |= norm_layout(f"{start}.norm1", dim)
            layout[f"{start}.attn.w_msa.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
            layout[f"{start}.attn.w_msa.relative_position_index"] = (WINDOW**2, WINDOW**2)
            layout |= linear_layout(f"{start}.attn.w_msa.qkv", 3 * dim, dim)
            layout |= linear_layout(f"{start}.attn.w_msa.proj", dim, dim)
            layout |= norm_layout(f"{start}.norm2", dim)
            layout |= linear_layout(f"{start}.ffn.layers.0.0", 4 * dim, dim)
            layout |= linear_layout(f"{start}.ffn.layers.1", dim, 4 * dim)
        if stage < 3:
            layout |= norm_layout(f"{prefix}stages.{stage}.downsample.norm", 4 * dim)
            layout[f"{prefix}stages.{stage}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
    for stage in range(4):
        layout |= norm_layout(f"{prefix}norm{stage}", sizes.dim * 2**stage)
    for kind in "wb" if controller else "":
        for stage in range(4):
            layout |= linear_layout(f"{prefix}semantic_embed_{kind}.{stage}", sizes.dim * 2 ** min(stage + 1, 3), 2)
    return layout


def teacher_layout(sizes: Sizes, *, outputs: int, prefix: str = "", hidden: int = 2048) -> Layout:
    """The teacher of a training checkpoint, and with a prefix its student."""
    layout, dim = trunk_layout(f"{prefix}backbone.", sizes), 8 * sizes.dim
    for number, (rows, columns) in {0: (hidden, dim), 2: (hidden, hidden), 4: (256, hidden)}.items():
        layout |= linear_layout(f"{prefix}head.mlp.{number}", rows, columns)
    return {
        **layout,
        f"{prefix}head.last_layer.weight_g": (outputs, 1),
        f"{prefix}head.last_layer.weight_v": (outputs, 256),
    }


def tuned_layout(sizes: Sizes, *, classes: int, controller: bool = True) -> Layout:
    """A fine-tuned file."""
    layout, dim = trunk_layout("base.", sizes, controller=controller), 8 * sizes.dim
    layout["classifier.weight"] = (classes, dim)
    layout |= norm_layout("bottleneck", dim)
    layout |= {"bottleneck.running_mean": (dim,), "bottleneck.running_var": (dim,)}
    return {**layout, "bottleneck.num_batches_tracked": ()}


def draw_state(layout: Layout, *, seed: int = 0) -> State:
    """Seeded float32 tensors in which every weight, shift and statistic makes a difference; indices as published."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for key, shape in layout.items():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
            continue
        if key.endswith("relative_position_index"):
            state[key] = table_rows().clone()
            continue
        if key.endswith("running_var"):
            drawn = 0.5 + drawn.square()
        elif len(shape) == 1:
            drawn = (1 if key.endswith("weight") else 0) + 0.2 * drawn
        elif "semantic_embed" not in key and "table" not in key:
            drawn = drawn / torch.Size(shape[1:]).numel() ** 0.5
        state[key] = drawn.float()
    return state
