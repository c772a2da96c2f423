"""OSNets on the tensors of torchreid's files, as plain functions; and the keys and shapes of these files."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Layout = dict[str, tuple[int, ...]]

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Osnet:
    """One published network.

    Args:
        stem, stages: channels.
        gate: channels in the middle of the gates of each stage.
        kind: plain, ibn or ain.
        parameters: without the classifier.
        tensors, elements: of the file of a network trained on 751 persons.
    """

    stem: int
    stages: tuple[int, int, int]
    gate: tuple[int, int, int]
    kind: str
    parameters: int
    tensors: int
    elements: int


WIDE = (64, (256, 384, 512), (4, 6, 8))
THREE_QUARTERS = (48, (192, 288, 384), (3, 4, 6))
HALF = (32, (128, 192, 256), (2, 3, 4))
QUARTER = (16, (64, 96, 128), (1, 1, 2))
OSNETS = {
    "osnet-x1.0": Osnet(*WIDE, "plain", 2_169_508, 567, 2_577_891),
    "osnet-x0.75": Osnet(*THREE_QUARTERS, "plain", 1_285_754, 567, 1_688_633),
    "osnet-x0.5": Osnet(*HALF, "plain", 630_034, 567, 1_027_409),
    "osnet-x0.25": Osnet(*QUARTER, "plain", 201_864, 567, 593_735),
    "osnet-ibn-x1.0": Osnet(*WIDE, "ibn", 2_170_532, 568, 2_578_786),
    "osnet-ain-x1.0": Osnet(*WIDE, "ain", 2_169_508, 552, 2_574_942),
    "osnet-ain-x0.75": Osnet(*THREE_QUARTERS, "ain", 1_285_754, 552, 1_686_420),
    "osnet-ain-x0.5": Osnet(*HALF, "ain", 630_034, 552, 1_025_932),
    "osnet-ain-x0.25": Osnet(*QUARTER, "ain", 201_864, 552, 592_994),
}
# Blocks of AIN with an instance norm on the residual, in place of the batch norm of its last convolution.
INSIDE = ("conv2.0", "conv2.1", "conv3.1", "conv4.0")
# Blocks of IBN with one on the sum.
ON_SUM = ("conv2.0", "conv2.1")


def norm(prefix: str, channels: int, *, instance: bool = False) -> Layout:
    names = BATCH_NORM[:2] if instance else BATCH_NORM
    counted: Layout = {} if instance else {f"{prefix}.num_batches_tracked": ()}
    return {**{f"{prefix}.{name}": (channels,) for name in names}, **counted}


def stream_keys(prefix: str, kind: str) -> list[list[str]]:
    """The prefixes of the lite convolutions of each of the four streams."""
    if kind == "ain":
        return [[f"{prefix}.conv2.{stream}.layers.{layer}" for layer in range(stream + 1)] for stream in range(4)]
    others = [[f"{prefix}.conv2{'abcd'[stream]}.{layer}" for layer in range(stream + 1)] for stream in range(1, 4)]
    return [[f"{prefix}.conv2a"], *others]


def between_key(stage: int, kind: str) -> str:
    return f"pool{stage}.0" if kind == "ain" else f"conv{stage}.2.0"


def file_layout(net: Osnet, *, classes: int = 751) -> Layout:
    """Keys and shapes of a file."""
    found: Layout = {
        "conv1.conv.weight": (net.stem, 3, 7, 7),
        **norm("conv1.bn", net.stem, instance=net.kind != "plain"),
    }
    width = net.stem
    for stage, (out, hidden) in enumerate(zip(net.stages, net.gate, strict=True), start=2):
        inner = out // 4
        for block in range(2):
            at, channels = f"conv{stage}.{block}", width if block == 0 else out
            found |= {f"{at}.conv1.conv.weight": (inner, channels, 1, 1), **norm(f"{at}.conv1.bn", inner)}
            for lite in (one for stream in stream_keys(at, net.kind) for one in stream):
                found |= {f"{lite}.conv1.weight": (inner, inner, 1, 1), f"{lite}.conv2.weight": (inner, 1, 3, 3)}
                found |= norm(f"{lite}.bn", inner)
            found |= {f"{at}.gate.fc1.weight": (hidden, inner, 1, 1), f"{at}.gate.fc1.bias": (hidden,)}
            found |= {f"{at}.gate.fc2.weight": (inner, hidden, 1, 1), f"{at}.gate.fc2.bias": (inner,)}
            found[f"{at}.conv3.conv.weight"] = (out, inner, 1, 1)
            if net.kind != "ain" or at not in INSIDE:
                found |= norm(f"{at}.conv3.bn", out)
            if block == 0:
                found |= {f"{at}.downsample.conv.weight": (out, width, 1, 1), **norm(f"{at}.downsample.bn", out)}
            if (net.kind == "ain" and at in INSIDE) or (net.kind == "ibn" and at in ON_SUM):
                found |= norm(f"{at}.IN", out, instance=True)
        if stage < 4:
            between = between_key(stage, net.kind)
            found |= {f"{between}.conv.weight": (out, out, 1, 1), **norm(f"{between}.bn", out)}
        width = out
    found |= {"conv5.conv.weight": (width, width, 1, 1), **norm("conv5.bn", width)}
    found |= {"fc.0.weight": (512, width), "fc.0.bias": (512,), **norm("fc.1", 512)}
    return {**found, "classifier.weight": (classes, 512), "classifier.bias": (classes,)}


def draw_state(net: Osnet, *, seed: int = 0, classes: int = 751) -> State:
    """Random tensors of a file, of sizes that keep maps away from 0 and infinity."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for key, shape in file_layout(net, classes=classes).items():
        drawn = torch.randn(shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var"):
            state[key] = drawn.abs() + 0.5
        elif len(shape) >= 2:
            state[key] = drawn * (2 / (shape[1] * (shape[-1] ** 2 if len(shape) == 4 else 1))) ** 0.5
        else:
            state[key] = drawn * 0.2 + (1.0 if key.endswith("weight") else 0.0)
    return state


def slow_norm(state: State, key: str, x: Tensor) -> Tensor:
    """Batch norm by its running statistics, or the map's own where it has none."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    if f"{key}.running_mean" in state:
        mean, var = state[f"{key}.running_mean"].view(shape), state[f"{key}.running_var"].view(shape)
    else:
        mean = x.mean(dim=(2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * state[f"{key}.weight"].view(shape) + state[f"{key}.bias"].view(shape)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("bchw,oc->bohw", x, weight[:, :, 0, 0])


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution within each channel, as nine shifted copies."""
    rows, columns = x.shape[2:]
    padded, out = F.pad(x, (1, 1, 1, 1)), torch.zeros_like(x)
    for row in range(3):
        for column in range(3):
            out += (
                padded[:, :, row : row + rows, column : column + columns] * weight[None, :, 0, row, column, None, None]
            )
    return out


def slow_gate(state: State, key: str, x: Tensor) -> Tensor:
    means = x.mean(dim=(2, 3))
    hidden = (means @ state[f"{key}.fc1.weight"][:, :, 0, 0].T + state[f"{key}.fc1.bias"]).clamp(min=0)
    share = 1 / (1 + (-(hidden @ state[f"{key}.fc2.weight"][:, :, 0, 0].T + state[f"{key}.fc2.bias"])).exp())
    return x * share[:, :, None, None]


def slow_block(state: State, at: str, x: Tensor, kind: str) -> Tensor:
    inner = slow_norm(state, f"{at}.conv1.bn", pointwise(x, state[f"{at}.conv1.conv.weight"])).clamp(min=0)
    total = torch.zeros_like(inner)
    for stream in stream_keys(at, kind):
        y = inner
        for lite in stream:
            y = depthwise(pointwise(y, state[f"{lite}.conv1.weight"]), state[f"{lite}.conv2.weight"])
            y = slow_norm(state, f"{lite}.bn", y).clamp(min=0)
        total = total + slow_gate(state, f"{at}.gate", y)
    out = pointwise(total, state[f"{at}.conv3.conv.weight"])
    if f"{at}.conv3.bn.weight" in state:
        out = slow_norm(state, f"{at}.conv3.bn", out)
    if kind == "ain" and f"{at}.IN.weight" in state:
        out = slow_norm(state, f"{at}.IN", out)
    if f"{at}.downsample.conv.weight" in state:
        x = slow_norm(state, f"{at}.downsample.bn", pointwise(x, state[f"{at}.downsample.conv.weight"]))
    out = out + x
    if kind == "ibn" and f"{at}.IN.weight" in state:
        out = slow_norm(state, f"{at}.IN", out)
    return out.clamp(min=0)


def slow_map(state: State, images: Tensor, kind: str) -> Tensor:
    """(B, 3, H, W) to the last map."""
    x = F.conv2d(images, state["conv1.conv.weight"], stride=2, padding=3)
    x = F.max_pool2d(slow_norm(state, "conv1.bn", x).clamp(min=0), 3, stride=2, padding=1)
    for stage in (2, 3, 4):
        for block in range(2):
            x = slow_block(state, f"conv{stage}.{block}", x, kind)
        if stage < 4:
            between = between_key(stage, kind)
            x = slow_norm(state, f"{between}.bn", pointwise(x, state[f"{between}.conv.weight"])).clamp(min=0)
            rows, columns = x.shape[2] // 2, x.shape[3] // 2
            x = x[:, :, : 2 * rows, : 2 * columns].unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).mean(dim=(3, 5))
    return slow_norm(state, "conv5.bn", pointwise(x, state["conv5.conv.weight"])).clamp(min=0)


def slow_feature(state: State, images: Tensor, kind: str) -> Tensor:
    """(B, 3, H, W) to the feature (B, 512)."""
    means = slow_map(state, images, kind).mean(dim=(2, 3))
    return slow_norm(state, "fc.1", means @ state["fc.0.weight"].T + state["fc.0.bias"]).clamp(min=0)
