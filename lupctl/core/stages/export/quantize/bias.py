"""Biases that make up for what rounded weights change in the mean of a layer's output."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.weights.onnx import Inputs
from lupctl.core.stages.export.quantize.graph import Layers, has_rows
from lupctl.core.stages.export.quantize.inputs import each_input

CHANNELS: Final = 1


def measure_means(folded: Any, layers: Layers, batches: Sequence[Inputs]) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of the input of each weighted layer over images, by the tensor's name.

    Args:
        folded: the graph in float32.
        layers: of it.
        batches: its inputs by name, of equal size.
    """
    sums: dict[str, Any] = {}
    for given in each_input(folded, layers, batches):
        for name, values in given.items():
            sums[name] = sums.get(name, 0) + _channel_means(values)
    return {name: total / len(batches) for name, total in sums.items()}


def _channel_means(values: NDArray[Any]) -> NDArray[np.float64]:
    axes = tuple(axis for axis in range(values.ndim) if axis != CHANNELS)
    means: NDArray[np.float64] = values.mean(axis=axes, dtype=np.float64)
    return means


def correct_biases(quantized: Any, folded: Any, layers: Layers, means: dict[str, NDArray[np.float64]]) -> int:
    """Adds to biases what rounded weights take from the mean of each output (Nagel et al. 2019, arXiv 1906.04721, 4.2).

    The mean of an input's channel is taken as that of every place in the kernel, as if there were no border. A layer
    without a bias stays as it is.

    Args:
        quantized: the graph in int8, an `onnx.ModelProto`; modified.
        folded: what it was made from.
        layers: of it.
        means: of the inputs of its layers.

    Returns:
        the number of layers whose bias was changed.
    """
    from onnx import numpy_helper

    made_by = {output: node for node in quantized.graph.node for output in node.output}
    constants = {one.name: one for one in quantized.graph.initializer}
    weights = {one.name: one for one in folded.graph.initializer}
    before = {node.name: node for node in folded.graph.node}
    count = 0
    for node in quantized.graph.node:
        if node.name not in layers.weighted or len(node.input) < 3 or not has_rows(node):
            continue
        kept, bias = made_by.get(node.input[1]), node.input[2]
        if kept is None or bias not in constants:
            continue
        rounded, scale = (numpy_helper.to_array(constants[name]) for name in kept.input[:2])
        was = before[node.name]
        wanted = numpy_helper.to_array(weights[was.input[1]]).astype(np.float64)
        lost = wanted - rounded * scale.reshape(-1, *[1] * (wanted.ndim - 1)).astype(np.float64)
        moved = numpy_helper.to_array(constants[bias]) + mean_output(lost, means[was.input[0]])
        count += 1
        # Under a name of its own: a layer that is left in float takes the bias as it was.
        node.input[2] = f"{bias}_corrected_{count}"
        quantized.graph.initializer.append(numpy_helper.from_array(moved.astype(np.float32), node.input[2]))
    return count


def mean_output(weights: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean output of a layer, from that of its input: (O, I, ...) weights of one or several groups, (C) to (O).

    >>> mean_output(np.ones((2, 1, 1, 3)), np.array([1.0, 2.0])).tolist()
    [3.0, 6.0]
    >>> mean_output(np.ones((2, 2)), np.array([1.0, 2.0])).tolist()
    [3.0, 3.0]
    """
    kernel = weights.reshape(*weights.shape[:2], -1).sum(axis=2)
    groups = len(mean) // kernel.shape[1]
    found: NDArray[np.float64] = np.einsum(
        "goi,gi->go", kernel.reshape(groups, -1, kernel.shape[1]), mean.reshape(groups, -1)
    ).ravel()
    return found
