"""TransReID and its descendants as their definitions say, from the tensors of a published file alone.

Slow and plain: one patch, one head and one group at a time. Every function takes the tensors under a prefix, as in
`base.` or `module.backbone.`; what no tensor shows (heads, stride, scale) is an argument. Numbers have the type of the
tensors, so that float64 gives a reference without rounding.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Grid = tuple[int, int]

LAYER_NORM_EPS = 1e-6
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Said:
    """What the tensors of a file do not say.

    Args:
        heads: of the attention.
        stride: of the patches.
        scale: of the products of queries and keys; None for (D / heads) ** -0.5.
        side: factor of the side information.
    """

    heads: int
    stride: int = 16
    scale: float | None = None
    side: float = 3.0


# Resizing a grid of positions


def bilinear_weights(source: int, target: int) -> Tensor:
    """(target, source): the two nearest centres, align_corners false; nothing outside of the first and last centre."""
    weights = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        at = max((row + 0.5) * source / target - 0.5, 0.0)
        left = min(int(at), source - 1)
        right = min(left + 1, source - 1)
        weights[row, left] += 1 - (at - left)
        weights[row, right] += at - left
    return weights


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * (x**3 - 5 * x**2 + 8 * x - 4)
    return 0.0


def bicubic_weights(source: int, target: int, *, step: float) -> Tensor:
    """(target, source): four taps around (i + 0.5) * step - 0.5; those outside repeat the border."""
    weights = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        at = (row + 0.5) * step - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[row, min(max(tap, 0), source - 1)] += cubic(at - tap)
    return weights


def resize_by(grid: Tensor, source: Grid, down: Tensor, across: Tensor) -> Tensor:
    """(1, n, D) of a grid, row by row, through one matrix per axis."""
    square = grid.double().reshape(*source, -1)
    out = torch.einsum("ih,jw,hwd->ijd", down, across, square)
    return out.reshape(1, -1, grid.shape[-1]).to(grid.dtype)


def slow_bilinear(grid: Tensor, source: Grid, target: Grid) -> Tensor:
    """The resize of TransReID's fine-tuning."""
    down, across = (bilinear_weights(*pair) for pair in zip(source, target, strict=True))
    return resize_by(grid, source, down, across)


def slow_dino(grid: Tensor, source: Grid, target: Grid) -> Tensor:
    """DINO's: bicubic, with the factors (target + 0.1) / source, whose inverse is the step from pixel to pixel."""
    pairs = zip(source, target, strict=True)
    down, across = (bicubic_weights(old, new, step=old / (new + 0.1)) for old, new in pairs)
    return resize_by(grid, source, down, across)


# Layers


def layer_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + LAYER_NORM_EPS).sqrt()
    return centred / spread * state[f"{prefix}.weight"] + state[f"{prefix}.bias"]


def batch_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    """With running statistics; channels are axis 1."""
    size = (1, -1, *[1] * (x.dim() - 2))
    mean, var = state[f"{prefix}.running_mean"].view(size), state[f"{prefix}.running_var"].view(size)
    return (x - mean) / (var + BATCH_NORM_EPS).sqrt() * state[f"{prefix}.weight"].view(size) + state[
        f"{prefix}.bias"
    ].view(size)


def instance_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    spread = (centred.square().mean(dim=(2, 3), keepdim=True) + BATCH_NORM_EPS).sqrt()
    return centred / spread * state[f"{prefix}.weight"].view(1, -1, 1, 1) + state[f"{prefix}.bias"].view(1, -1, 1, 1)


def ibn(state: State, prefix: str, x: Tensor) -> Tensor:
    """The first half of the channels by image, the second by running statistics."""
    half = x.shape[1] // 2
    parts = (instance_norm(state, f"{prefix}.IN", x[:, :half]), batch_norm(state, f"{prefix}.BN", x[:, half:]))
    return torch.cat(parts, dim=1)


def linear(state: State, prefix: str, x: Tensor) -> Tensor:
    out = x @ state[f"{prefix}.weight"].T
    return out + state[f"{prefix}.bias"] if f"{prefix}.bias" in state else out


def attention(state: State, prefix: str, x: Tensor, said: Said) -> Tensor:
    """One head at a time; rows of qkv are queries, keys, values, each head after head."""
    dim = x.shape[-1]
    size = dim // said.heads
    scale = size**-0.5 if said.scale is None else said.scale
    queries, keys, values = linear(state, f"{prefix}.qkv", x).split(dim, dim=-1)
    outputs = []
    for head in range(said.heads):
        own = slice(head * size, (head + 1) * size)
        products = queries[..., own] @ keys[..., own].transpose(1, 2) * scale
        outputs.append(products.softmax(dim=-1) @ values[..., own])
    return linear(state, f"{prefix}.proj", torch.cat(outputs, dim=-1))


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def block(state: State, prefix: str, x: Tensor, said: Said) -> Tensor:
    x = x + attention(state, f"{prefix}.attn", layer_norm(state, f"{prefix}.norm1", x), said)
    hidden = gelu(linear(state, f"{prefix}.mlp.fc1", layer_norm(state, f"{prefix}.norm2", x)))
    return x + linear(state, f"{prefix}.mlp.fc2", hidden)


# Tokens


def cut_patches(weight: Tensor, bias: Tensor, x: Tensor, stride: int) -> Tensor:
    """(B, N, D), row by row, of every square that fits in entirely."""
    side = weight.shape[-1]
    flat = weight.flatten(1)
    tokens = [
        x[:, :, top : top + side, left : left + side].flatten(1) @ flat.T + bias
        for top in range(0, x.shape[2] - side + 1, stride)
        for left in range(0, x.shape[3] - side + 1, stride)
    ]
    return torch.stack(tokens, dim=1)


def stem(state: State, prefix: str, images: Tensor, said: Said) -> Tensor:
    """Patches of the image, or of the map of the IBN convolution stem if the file has one."""
    weight, bias = state[f"{prefix}patch_embed.proj.weight"], state[f"{prefix}patch_embed.proj.bias"]
    conv = f"{prefix}patch_embed.conv"
    if f"{conv}.0.weight" not in state:
        return cut_patches(weight, bias, images, said.stride)
    x = F.conv2d(images, state[f"{conv}.0.weight"], stride=2, padding=3)
    x = ibn(state, f"{conv}.1", x).clamp(min=0)
    x = ibn(state, f"{conv}.4", F.conv2d(x, state[f"{conv}.3.weight"], padding=1)).clamp(min=0)
    x = batch_norm(state, f"{conv}.7", F.conv2d(x, state[f"{conv}.6.weight"], padding=1)).clamp(min=0)
    return cut_patches(weight, bias, x, 8)


def begin(state: State, prefix: str, images: Tensor, said: Said, cameras: list[int] | None) -> Tensor:
    """What the first block takes: class token (and part tokens) and patches, positions, side information."""
    patches = stem(state, prefix, images, said)
    if f"{prefix}part_token1" in state:
        names = ("cls", "part1", "part2", "part3")
        first = [
            state[f"{prefix}{token}"] + state[f"{prefix}{name}_pos"]
            for token, name in zip(("cls_token", "part_token1", "part_token2", "part_token3"), names, strict=True)
        ]
        patches = patches + state[f"{prefix}pos_embed"]
        return torch.cat([*(token.expand(len(images), -1, -1) for token in first), patches], dim=1)
    token = state[f"{prefix}cls_token"].expand(len(images), -1, -1)
    x = torch.cat((token, patches), dim=1) + state[f"{prefix}pos_embed"]
    if cameras is not None:
        x = x + said.side * torch.stack([state[f"{prefix}sie_embed"][camera] for camera in cameras])
    return x


def count_blocks(state: State, prefix: str) -> int:
    start = f"{prefix}blocks."
    return len({key.removeprefix(start).partition(".")[0] for key in state if key.startswith(start)})


def slow_tokens(
    state: State, images: Tensor, said: Said, *, prefix: str = "", cameras: list[int] | None = None
) -> Tensor:
    """(B, 1 + N, D), or (B, 4 + N, D) with part tokens, after every block and the final norm."""
    x = begin(state, prefix, images, said, cameras)
    for number in range(count_blocks(state, prefix)):
        x = block(state, f"{prefix}blocks.{number}", x, said)
    return layer_norm(state, f"{prefix}norm", x)


# Heads


def rearrange(tokens: Tensor, *, shift: int, groups: int) -> Tensor:
    """(B, 1 + N, D) to the patches alone, shifted and interleaved; an odd number gets its last but one once more."""
    patches = [tokens[:, number] for number in range(tokens.shape[1])]
    patches = patches[shift:] + patches[1:shift]
    if len(patches) % groups:
        patches.append(patches[-2])
    length = len(patches) // groups
    order = [group * length + number for number in range(length) for group in range(groups)]
    return torch.stack([patches[number] for number in order], dim=1)


def jigsaw_features(
    state: State, images: Tensor, said: Said, *, cameras: list[int] | None = None, shift: int = 5, groups: int = 2
) -> list[Tensor]:
    """Global and four local features of the jigsaw patch module, each (B, D), before their necks."""
    x = begin(state, "base.", images, said, cameras)
    for number in range(count_blocks(state, "base.") - 1):
        x = block(state, f"base.blocks.{number}", x, said)
    features = [layer_norm(state, "b1.1", block(state, "b1.0", x, said))[:, 0]]
    length = (x.shape[1] - 1) // 4
    patches = rearrange(x, shift=shift, groups=groups)
    for part in range(4):
        own = torch.cat((x[:, :1], patches[:, part * length : (part + 1) * length]), dim=1)
        features.append(layer_norm(state, "b2.1", block(state, "b2.0", own, said))[:, 0])
    return features


def necks(state: State, features: list[Tensor]) -> list[Tensor]:
    """Each feature after its own batch norm."""
    names = ["bottleneck", *(f"bottleneck_{number}" for number in range(1, len(features)))]
    return [batch_norm(state, name, feature) for name, feature in zip(names, features, strict=True)]


def jigsaw_feature(features: list[Tensor]) -> Tensor:
    """(B, 5 D): the local ones count a quarter each."""
    return torch.cat([features[0], *(feature / 4 for feature in features[1:])], dim=1)


def parts_features(state: State, images: Tensor, said: Said, *, prefix: str = "base.") -> list[Tensor]:
    """Class token and three part tokens of PASS, each (B, D)."""
    tokens = slow_tokens(state, images, said, prefix=prefix)
    return [tokens[:, number] for number in range(4)]


def parts_feature(features: list[Tensor]) -> Tensor:
    """(B, 2 D): the class token, and the mean of the part tokens."""
    return torch.cat((features[0], (features[1] + features[2] + features[3]) / 3), dim=1)


def slow_feature(
    state: State, images: Tensor, said: Said, *, cameras: list[int] | None = None, after: bool = False
) -> Tensor:
    """The retrieval feature of a fine-tuned file, not normalised.

    Args:
        state: in the keys of the file.
        images: (B, 3, H, W), of the size that the positions belong to.
        said: what no tensor says.
        cameras: rows of the side information, counted from 0; None to leave the term out.
        after: after the neck or necks instead of before.
    """
    if "b1.0.norm1.weight" in state:
        features = jigsaw_features(state, images, said, cameras=cameras)
        return jigsaw_feature(necks(state, features) if after else features)
    if "base.part_token1" in state:
        features = parts_features(state, images, said)
        return parts_feature(necks(state, features) if after else features)
    features = [slow_tokens(state, images, said, prefix="base.", cameras=cameras)[:, 0]]
    return (necks(state, features) if after else features)[0]


def slow_clusters_feature(state: State, images: Tensor, said: Said, *, prefix: str = "module.") -> Tensor:
    """The feature of a file of training on clusters, of unit length: batch norm of the class token, then L2 norm."""
    feature = batch_norm(state, f"{prefix}bottleneck", slow_tokens(state, images, said, prefix=prefix)[:, 0])
    return feature / feature.square().sum(dim=1, keepdim=True).sqrt()


def slow_train_outputs(
    state: State, images: Tensor, said: Said, *, cameras: list[int] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Logits and the features of the triplet loss, for running statistics in every neck.

    Returns:
        with the jigsaw patch module five and five; one and one otherwise, of the concatenation with part tokens.
    """
    if "b1.0.norm1.weight" in state:
        features = jigsaw_features(state, images, said, cameras=cameras)
        names = ["classifier", *(f"classifier_{number}" for number in range(1, 5))]
        return [linear(state, name, x) for name, x in zip(names, necks(state, features), strict=True)], features
    feature = slow_feature(state, images, said, cameras=cameras)
    return [linear(state, "classifier", slow_feature(state, images, said, cameras=cameras, after=True))], [feature]
