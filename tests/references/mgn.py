"""MGN as its published files lay it out, and its feature from the tensors of such a file alone."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = {"r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3), "r152": (3, 8, 36, 3)}
NORM = ("weight", "bias", "running_mean", "running_var")


def norm_layout(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {**{f"{prefix}.{name}": (channels,) for name in NORM}, f"{prefix}.num_batches_tracked": ()}


def block_layout(prefix: str, inputs: int, planes: int) -> dict[str, tuple[int, ...]]:
    """A bottleneck; the shortcut has weights where the channels change."""
    layout: dict[str, tuple[int, ...]] = {}
    sizes = ((planes, inputs, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1))
    for number, size in enumerate(sizes, start=1):
        layout[f"{prefix}.conv{number}.weight"] = size
        layout |= norm_layout(f"{prefix}.bn{number}", size[0])
    if inputs != 4 * planes:
        layout[f"{prefix}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
        layout |= norm_layout(f"{prefix}.downsample.1", 4 * planes)
    return layout


def stage_layout(prefix: str, inputs: int, planes: int, count: int) -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {}
    for number in range(count):
        layout |= block_layout(f"{prefix}.{number}", inputs if number == 0 else 4 * planes, planes)
    return layout


def published_layout(arch: str, *, extra_bn: bool, classes: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published file, from the written table of patterns."""
    blocks = BLOCKS[arch]
    layout: dict[str, tuple[int, ...]] = {"pixel_mean": (1, 3, 1, 1), "pixel_std": (1, 3, 1, 1)}
    layout["backbone.0.weight"] = (64, 3, 7, 7)
    layout |= norm_layout("backbone.1", 64)
    layout |= stage_layout("backbone.4", 64, 64, blocks[0])
    layout |= stage_layout("backbone.5", 256, 128, blocks[1])
    layout |= block_layout("backbone.6", 512, 256)
    for branch in (1, 2, 3):
        layout |= stage_layout(f"b{branch}.0", 1024, 256, blocks[2] - 1)
        layout |= stage_layout(f"b{branch}.1", 1024, 512, blocks[3])
        if extra_bn:
            layout |= norm_layout(f"heads_extra_bn_b{branch}", 2048)
    for head in ("b1", "b2", "b21", "b22", "b3", "b31", "b32", "b33"):
        layout[f"{head}_head.pool_layer.p"] = (1,)
        layout[f"{head}_head.bottleneck.0.weight"] = (256, 2048, 1, 1)
        layout |= norm_layout(f"{head}_head.bottleneck.1", 256)
        layout[f"{head}_head.classifier.weight"] = (classes, 256)
    return layout


def slow_norm(state: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    mean, var = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
    weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
    size = (1, -1, 1, 1)
    return (x - mean.view(size)) / (var.view(size) + 1e-5).sqrt() * weight.view(size) + bias.view(size)


def slow_block(state: dict[str, Tensor], prefix: str, x: Tensor, stride: int) -> Tensor:
    """A bottleneck whose 3x3 convolution has the stride."""
    y = slow_norm(state, f"{prefix}.bn1", F.conv2d(x, state[f"{prefix}.conv1.weight"])).clamp(min=0)
    y = F.conv2d(y, state[f"{prefix}.conv2.weight"], stride=stride, padding=1)
    y = slow_norm(state, f"{prefix}.bn2", y).clamp(min=0)
    y = slow_norm(state, f"{prefix}.bn3", F.conv2d(y, state[f"{prefix}.conv3.weight"]))
    if f"{prefix}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride)
        x = slow_norm(state, f"{prefix}.downsample.1", x)
    return (x + y).clamp(min=0)


def slow_stage(state: dict[str, Tensor], prefix: str, x: Tensor, stride: int) -> Tensor:
    for number in itertools.count():
        if f"{prefix}.{number}.conv1.weight" not in state:
            return x
        x = slow_block(state, f"{prefix}.{number}", x, stride if number == 0 else 1)
    return x


def slow_head(state: dict[str, Tensor], name: str, part: Tensor) -> Tensor:
    power = float(state[f"{name}.pool_layer.p"])
    pooled = part.clamp(min=1e-6).pow(power).flatten(2).mean(dim=2).pow(1 / power)
    reduced = F.conv2d(pooled[:, :, None, None], state[f"{name}.bottleneck.0.weight"])
    return slow_norm(state, f"{name}.bottleneck.1", reduced)[:, :, 0, 0]


def slow_feature(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The evaluation feature from the tensors of a file alone, by the written description."""
    x = F.conv2d(images, state["backbone.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(slow_norm(state, "backbone.1", x).clamp(min=0), 3, stride=2, padding=1)
    x = slow_stage(state, "backbone.4", x, 1)
    x = slow_stage(state, "backbone.5", x, 2)
    x = slow_block(state, "backbone.6", x, 2)
    maps = []
    for branch in ("b1", "b2", "b3"):
        y = slow_stage(state, f"{branch}.1", slow_stage(state, f"{branch}.0", x, 1), 1)
        extra = f"heads_extra_bn_{branch}"
        maps.append(slow_norm(state, extra, y) if f"{extra}.weight" in state else y)
    half, third = x.shape[2] // 2, x.shape[2] // 3
    parts = {
        "b1": maps[0], "b2": maps[1], "b3": maps[2], "b21": maps[1][:, :, :half], "b22": maps[1][:, :, half:],
        "b31": maps[2][:, :, :third], "b32": maps[2][:, :, third : 2 * third], "b33": maps[2][:, :, 2 * third :],
    }  # fmt: skip
    order = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
    return torch.cat([slow_head(state, f"{name}_head", parts[name]) for name in order], dim=1)
