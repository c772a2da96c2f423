"""Weights rounded one input after the other, so that those that follow make up for what was rounded before."""

from collections.abc import Sequence
from math import ceil, prod, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.weights.onnx import Inputs
from lupctl.core.stages.export.quantize.graph import Layers, has_rows
from lupctl.core.stages.export.quantize.inputs import each_input
from lupctl.core.stages.export.quantize.int8 import WEIGHT_BITS
from lupctl.core.system.progress.lines import Progress

# A layer with more inputs of one output is rounded to the nearest: many errors cancel out, and time grows with the cube
# of their number, memory with its square.
MOST_INPUTS: Final = 1152
# Places of a batch of maps that are looked at, which is all of OSNet's but its first layer's.
PLACES: Final = 16384
# Added to the diagonal, as a share of its mean.
DAMPING: Final = 0.01
PLAIN: Final = ("", b"", b"NOTSET")


def measure_moments(folded: Any, layers: Layers, batches: Sequence[Inputs]) -> dict[str, NDArray[np.float64]]:
    """Sums of products of the inputs of each output of a layer, (groups, inputs, inputs), by the layer's name.

    Args:
        folded: the graph in float32, an `onnx.ModelProto`.
        layers: of it; those with too many inputs are left out.
        batches: its inputs by name.
    """
    weights = {one.name: one for one in folded.graph.initializer}
    nodes = [node for node in folded.graph.node if node.name in layers.weighted]
    found: dict[str, Any] = {}
    for given in each_input(folded, layers, batches):
        for node in nodes:
            rows = _input_rows(node, given[node.input[0]], tuple(weights[node.input[1]].dims))
            if rows is not None:
                found[node.name] = found.get(node.name, 0) + (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
    return found


def _input_rows(node: Any, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """What one output of a layer is computed from, (groups, places, inputs); None if that is too much."""
    if node.op_type != "Conv":
        size = shape[1] if has_rows(node) else shape[0]
        if len(shape) != 2 or size > MOST_INPUTS:
            return None
        rows = values.reshape(-1, size)
        return rows[None, :: ceil(len(rows) / PLACES)].astype(np.float32, copy=False)
    settings = {one.name: one for one in node.attribute}
    if len(shape) != 4 or prod(shape[1:]) > MOST_INPUTS:
        return None
    if "auto_pad" in settings and settings["auto_pad"].s not in PLAIN:
        return None
    return cut_patches(
        values,
        (shape[2], shape[3]),
        groups=settings["group"].i if "group" in settings else 1,
        strides=tuple(settings["strides"].ints) if "strides" in settings else (1, 1),
        pads=tuple(settings["pads"].ints) if "pads" in settings else (0, 0, 0, 0),
        dilations=tuple(settings["dilations"].ints) if "dilations" in settings else (1, 1),
    )


def cut_patches(
    maps: NDArray[Any],
    kernel: tuple[int, int],
    *,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> NDArray[np.float32]:
    """What a convolution multiplies its weights by: (N, C, H, W) to (groups, places, C / groups x kernel).

    Args:
        maps: of several images; of many places some are taken, evenly.
        kernel, groups, strides, pads, dilations: of the convolution, as ONNX writes them.
    """
    (high, wide), (top, left, bottom, right) = kernel, pads
    padded = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.float32, copy=False)
    window = (high - 1) * dilations[0] + 1, (wide - 1) * dilations[1] + 1
    patches = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(2, 3))
    patches = patches[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    step = ceil(sqrt(len(maps) * patches.shape[2] * patches.shape[3] / PLACES))
    patches = patches[:, :, ::step, ::step]
    count, channels = patches.shape[:2]
    parts = patches.reshape(count, groups, channels // groups, *patches.shape[2:]).transpose(1, 0, 3, 4, 2, 5, 6)
    return parts.reshape(groups, -1, channels // groups * high * wide)


def round_weights(
    quantized: Any, folded: Any, layers: Layers, moments: dict[str, NDArray[np.float64]], progress: Progress
) -> int:
    """Rounds the weights of layers again, for the inputs that they really have.

    Args:
        quantized: the graph in int8, an `onnx.ModelProto`; modified.
        folded: what it was made from.
        layers: of it.
        moments: of the inputs of its layers.
        progress: a bar.

    Returns:
        the number of layers.
    """
    from onnx import numpy_helper

    made_by = {output: node for node in quantized.graph.node for output in node.output}
    constants = {one.name: one for one in quantized.graph.initializer}
    weights = {one.name: one for one in folded.graph.initializer}
    before = {node.name: node for node in folded.graph.node}
    nodes = [node for node in quantized.graph.node if node.name in layers.weighted and node.name in moments]
    nodes = [node for node in nodes if node.input[1] in made_by]
    with progress.task("rounding", total=len(nodes), unit="layers") as bar:
        for node in nodes:
            source, scale = made_by[node.input[1]].input[:2]
            wanted = numpy_helper.to_array(weights[before[node.name].input[1]]).astype(np.float64)
            rows = wanted if has_rows(node) else wanted.T
            steps = numpy_helper.to_array(constants[scale]).astype(np.float64).reshape(-1)
            found = round_rows(rows.reshape(len(rows), -1), np.broadcast_to(steps, len(rows)), moments[node.name])
            found = found.reshape(rows.shape) if has_rows(node) else found.T
            constants[source].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(found), source))
            bar.advance()
    return len(nodes)


def round_rows(rows: NDArray[np.float64], steps: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.int8]:
    """Whole numbers for weights (Frantar et al. 2022, arXiv 2210.17323, algorithm 1).

    Each input is rounded in all rows, and the error is spread over those after it by what they have in common, so that
    the change of the outputs is small rather than that of the weights.

    Args:
        rows: (outputs, inputs) of one or several groups, one after the other.
        steps: (outputs) what a whole number stands for.
        moments: (groups, inputs, inputs) sums of products of the inputs.
    """
    groups, count = moments.shape[:2]
    left, unit = rows.reshape(groups, -1, count).copy(), steps.reshape(groups, -1)
    diagonal = np.einsum("gii->gi", moments)
    mean = diagonal.mean(axis=1)
    shift = DAMPING * np.where(mean > 0, mean, 1)
    inverse = np.linalg.inv(moments + shift[:, None, None] * np.eye(count))
    spread = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    most, found = 2 ** (WEIGHT_BITS - 1), np.empty(left.shape, np.int8)
    for column in range(count):
        found[:, :, column] = np.rint(left[:, :, column] / unit).clip(-most, most)
        error = (left[:, :, column] - found[:, :, column] * unit) / spread[:, column, column, None]
        left[:, :, column + 1 :] -= error[:, :, None] * spread[:, None, column, column + 1 :]
    return found.reshape(rows.shape)
