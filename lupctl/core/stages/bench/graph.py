"""Sizes of a network in ONNX, counted from its graph."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

# Weights in whole numbers of a byte are those of a quantised network; longer ones are shapes and indices.
WEIGHTS: Final = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")
CONVOLUTIONS: Final = ("Conv", "ConvInteger", "QLinearConv")
PRODUCTS: Final = ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm")
# Operations of other domains may multiply whatever they like.
KNOWN_DOMAINS: Final = ("", "ai.onnx")
# Where an operation keeps its second operand: those on quantised numbers have scales in between.
SECOND: Final = {"QLinearConv": 3, "QLinearMatMul": 3}


def count_weights(path: Path) -> int:
    """Numbers in the weights of a graph; scales of quantisation are among them."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    kinds = {onnx.TensorProto.DataType.Value(name) for name in WEIGHTS}
    return sum(prod(one.dims) for one in _constants(graph) if one.data_type in kinds and one.dims)


def count_flops(path: Path, *, height: int, width: int) -> int | None:
    """Floating-point operations of one image: two for each multiplication of a convolution or a matrix product.

    Args:
        path: the file.
        height, width: of its images.

    Returns:
        None where a shape is not known, or there is an operation of another domain.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    _fix_input(model, height, width)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # its own errors have no other base; a graph that it cannot read is one that is not counted
        return None
    shapes = _shapes(inferred)
    total = 0
    for node in inferred.node:
        if node.domain not in KNOWN_DOMAINS or any(one.type in (one.GRAPH, one.GRAPHS) for one in node.attribute):
            return None
        if node.op_type in CONVOLUTIONS + PRODUCTS:
            found = _operations(node, shapes)
            if found is None:
                return None
            total += found
    return total


def _fix_input(model: Any, height: int, width: int) -> None:
    """Makes every free axis of the inputs that of one image."""
    for one in model.graph.input:
        axes = one.type.tensor_type.shape.dim
        channels = next((index for index in (1, 3) if len(axes) == 4 and axes[index].dim_value == 3), None)
        sides = {None: {}, 1: {2: height, 3: width}, 3: {1: height, 2: width}}[channels]
        for index, axis in enumerate(axes):
            axis.dim_value = 1 if index == 0 else sides.get(index, axis.dim_value or 1)
    # What the file says of shapes further on may name the axes that are numbers now.
    del model.graph.value_info[:]
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by name, where every side is known."""
    found: dict[str, tuple[int, ...]] = {one.name: tuple(one.dims) for one in graph.initializer}
    for one in (*graph.input, *graph.value_info, *graph.output):
        if not one.type.tensor_type.HasField("shape"):
            continue
        sides = [axis.dim_value for axis in one.type.tensor_type.shape.dim]
        if all(side > 0 for side in sides):
            found[one.name] = tuple(sides)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = tuple(node.attribute[0].t.dims)
    return found


def _operations(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Those of a convolution or a matrix product; None where its shapes are not known."""
    second = shapes.get(node.input[SECOND.get(node.op_type, 1)])
    first, result = shapes.get(node.input[0]), shapes.get(node.output[0])
    if first is None or second is None or result is None:
        return None
    if node.op_type in CONVOLUTIONS:
        return 2 * prod(result) * prod(second[1:])  # weights are (out, in / groups, sides…)
    turned = node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute)
    return 2 * prod(result) * first[-2 if turned else -1]


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (one.t for one in node.attribute if one.HasField("t"))
