"""Sizes of a network in OpenVINO's format, counted from its graph as those of an ONNX file are."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from lupctl.core.formats.weights.runtimes.openvino import read_openvino

CONVOLUTION, GROUPS, PRODUCT = "Convolution", "GroupConvolution", "MatMul"
CONSTANT: Final = "Constant"
# Whole numbers of a byte are weights of a quantised network; longer ones are shapes and indices.
WEIGHTS: Final = ("f16", "f32", "f64", "bf16", "i8", "u8")


def count_openvino_weights(path: Path) -> int:
    """Numbers in the weights of a graph; scales of quantisation are among them.

    Raises:
        UsageError, DataError, FormatError: it cannot be opened.
    """
    constants = [one for one in read_openvino(path).get_ordered_ops() if one.get_type_name() == CONSTANT]
    shapes = [tuple(one.get_output_shape(0)) for one in constants if one.get_element_type().get_type_name() in WEIGHTS]
    return sum(prod(shape) for shape in shapes if shape)


def count_openvino_flops(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Floating-point operations of a pass: two for each multiplication of a convolution or a matrix product.

    Args:
        path: the graph.
        shapes: of its inputs, by name.

    Returns:
        None where its shapes do not follow from those.
    """
    model = read_openvino(path)
    try:
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return sum(_operations(one) for one in model.get_ordered_ops())
    except RuntimeError:  # a shape that is known while it runs alone, or one that does not fit
        return None


def _operations(node: Any) -> int:
    """Those of a convolution or a matrix product; of other nodes none."""
    kind = node.get_type_name()
    if kind not in (CONVOLUTION, GROUPS, PRODUCT):
        return 0
    result, first, second = node.get_output_shape(0), node.get_input_shape(0), node.get_input_shape(1)
    if kind == PRODUCT:
        return 2 * int(prod(result)) * int(first[-2 if node.get_attributes()["transpose_a"] else -1])
    return 2 * int(prod(result) * prod(second[1 if kind == CONVOLUTION else 2 :]))  # (groups, out, in, sides…)
