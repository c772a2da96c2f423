"""Keys and shapes of the files of TransReID and its descendants, and random tensors that matter for them."""

from dataclasses import dataclass

import torch
from torch import Tensor

Layout = dict[str, tuple[int, ...]]

NORM = ("weight", "bias")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Size:
    """Numbers of a vision transformer.

    Args:
        dim, depth, hidden: width, number of blocks, width of the MLP.
        tokens: number of patches.
        qkv_bias: whether queries, keys and values have one.
        ics: the IBN convolution stem.
        parts: three part tokens.
        cameras: rows of the side information; 0 for none.
    """

    dim: int
    depth: int
    hidden: int
    tokens: int
    qkv_bias: bool = True
    ics: bool = False
    parts: bool = False
    cameras: int = 0


# As published; 256 x 128 at stride 16.
SMALL = Size(dim=384, depth=12, hidden=1536, tokens=128)
BASE = Size(dim=768, depth=12, hidden=3072, tokens=128)
# For tests: two heads of 64.
TINY = Size(dim=128, depth=3, hidden=256, tokens=128)


def norm_layout(prefix: str, channels: int) -> Layout:
    return {f"{prefix}.{name}": (channels,) for name in NORM}


def batch_norm_layout(prefix: str, channels: int) -> Layout:
    return {**{f"{prefix}.{name}": (channels,) for name in BATCH_NORM}, f"{prefix}.num_batches_tracked": ()}


def linear_layout(prefix: str, outputs: int, inputs: int, *, bias: bool = True) -> Layout:
    weight: Layout = {f"{prefix}.weight": (outputs, inputs)}
    return {**weight, f"{prefix}.bias": (outputs,)} if bias else weight


def block_layout(prefix: str, size: Size) -> Layout:
    return {
        **norm_layout(f"{prefix}.norm1", size.dim),
        **linear_layout(f"{prefix}.attn.qkv", 3 * size.dim, size.dim, bias=size.qkv_bias),
        **linear_layout(f"{prefix}.attn.proj", size.dim, size.dim),
        **norm_layout(f"{prefix}.norm2", size.dim),
        **linear_layout(f"{prefix}.mlp.fc1", size.hidden, size.dim),
        **linear_layout(f"{prefix}.mlp.fc2", size.dim, size.hidden),
    }


def stem_layout(prefix: str, size: Size) -> Layout:
    if not size.ics:
        return {f"{prefix}.proj.weight": (size.dim, 3, 16, 16), f"{prefix}.proj.bias": (size.dim,)}
    layout: Layout = {}
    for number, inputs, kernel in ((0, 3, 7), (3, 64, 3), (6, 64, 3)):
        layout[f"{prefix}.conv.{number}.weight"] = (64, inputs, kernel, kernel)
        if number == 6:
            layout |= batch_norm_layout(f"{prefix}.conv.7", 64)
        else:
            layout |= norm_layout(f"{prefix}.conv.{number + 1}.IN", 32)
            layout |= batch_norm_layout(f"{prefix}.conv.{number + 1}.BN", 32)
    return {**layout, f"{prefix}.proj.weight": (size.dim, 64, 8, 8), f"{prefix}.proj.bias": (size.dim,)}


def trunk_layout(prefix: str, size: Size) -> Layout:
    """A trunk without classifier; the position of the class token is the first row, with part tokens on its own."""
    one = (1, 1, size.dim)
    layout: Layout = {f"{prefix}cls_token": one}
    if size.parts:
        layout |= {f"{prefix}part_token{number}": one for number in (1, 2, 3)}
        layout |= {f"{prefix}{name}_pos": one for name in ("cls", "part1", "part2", "part3")}
    layout[f"{prefix}pos_embed"] = (1, size.tokens + (0 if size.parts else 1), size.dim)
    if size.cameras:
        layout[f"{prefix}sie_embed"] = (size.cameras, 1, size.dim)
    layout |= stem_layout(f"{prefix}patch_embed", size)
    for number in range(size.depth):
        layout |= block_layout(f"{prefix}blocks.{number}", size)
    return {**layout, **norm_layout(f"{prefix}norm", size.dim)}


def reid_layout(size: Size, *, classes: int, jpm: bool = False) -> Layout:
    """A fine-tuned file, with the unused `base.fc` and, with JPM, the unused last block and norm."""
    layout = {**trunk_layout("base.", size), **linear_layout("base.fc", 1000, size.dim)}
    for branch in ("b1", "b2") if jpm else ():
        layout |= {**block_layout(f"{branch}.0", size), **norm_layout(f"{branch}.1", size.dim)}
    necks = [f"_{number}" for number in range(1, 5 if jpm else 4)] if jpm or size.parts else []
    for end in ("", *necks) if jpm else ("",):
        layout[f"classifier{end}.weight"] = (classes, size.dim * (2 if size.parts else 1))
    for end in ("", *necks):
        layout |= batch_norm_layout(f"bottleneck{end}", size.dim)
    return layout


def clusters_layout(size: Size, *, prefix: str = "module.") -> Layout:
    """A file of training on clusters: the neck is beside the tensors of the trunk, and there is no classifier."""
    return {**trunk_layout(prefix, size), **batch_norm_layout(f"{prefix}bottleneck", size.dim)}


def dino_head_layout(prefix: str, dim: int, *, outputs: int, hidden: int) -> Layout:
    layout: Layout = {}
    for number, rows, columns in ((0, hidden, dim), (2, hidden, hidden), (4, 256, hidden)):
        layout |= linear_layout(f"{prefix}mlp.{number}", rows, columns)
    return {**layout, f"{prefix}last_layer.weight_g": (outputs, 1), f"{prefix}last_layer.weight_v": (outputs, 256)}


def dino_layout(size: Size, *, outputs: int, hidden: int = 2048, prefix: str = "") -> Layout:
    """The teacher or student of a DINO checkpoint."""
    head = dino_head_layout(f"{prefix}head.", size.dim, outputs=outputs, hidden=hidden)
    return {**trunk_layout(f"{prefix}backbone.", size), **head}


def imagenet_layout(size: Size, *, distilled: bool = False) -> Layout:
    """A timm or DeiT file: square grid, classifier, and with distillation a second token and position row."""
    layout = {**trunk_layout("", size), **linear_layout("head", 1000, size.dim)}
    if distilled:
        layout["dist_token"] = (1, 1, size.dim)
        layout["pos_embed"] = (1, size.tokens + 2, size.dim)
        layout |= linear_layout("head_dist", 1000, size.dim)
    return layout


def count_elements(layout: Layout) -> int:
    return sum(torch.Size(shape).numel() for shape in layout.values())


def draw_state(layout: Layout, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Seeded tensors in which every weight, shift and statistic makes a difference."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in layout.items():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
            continue
        if key.endswith("running_var"):
            drawn = 0.5 + drawn.square()
        elif len(shape) == 1 and key.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        elif len(shape) == 1:
            drawn = 0.2 * drawn
        elif key.endswith(("token", "pos_embed", "_pos", "token1", "token2", "token3", "sie_embed")):
            drawn = 0.3 * drawn
        elif len(shape) > 1:
            drawn = drawn / torch.Size(shape[1:]).numel() ** 0.5
        state[key] = drawn.to(dtype)
    return state
