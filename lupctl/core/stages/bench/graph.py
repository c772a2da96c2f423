"""Sizes of a network in ONNX, counted from its graph."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

# Weights in whole numbers of a byte are those of a quantised network; longer ones are shapes and indices.
WEIGHTS: Final = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")
CONVOLUTIONS: Final = ("Conv", "ConvInteger", "QLinearConv")
PRODUCTS: Final = ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm")
# Operations of other domains may multiply whatever they like.
KNOWN_DOMAINS: Final = ("", "ai.onnx")
# onnxruntime only says what ends it.
SILENT: Final = 4
# Where an operation keeps its second operand: those on quantised numbers have scales in between.
SECOND: Final = {"QLinearConv": 3, "QLinearMatMul": 3}


def count_weights(path: Path) -> int:
    """Numbers in the weights of a graph; scales of quantisation are among them."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    kinds = {onnx.TensorProto.DataType.Value(name) for name in WEIGHTS}
    return sum(prod(one.dims) for one in _constants(graph) if one.data_type in kinds and one.dims)


def count_flops(path: Path, given: Mapping[str, NDArray[Any]]) -> int | None:
    """Floating-point operations of a pass: two for each multiplication of a convolution or a matrix product.

    The graph is run once, with what these operations take and give as further outputs: a file says little of shapes.

    Args:
        path: the file.
        given: its inputs.

    Returns:
        None where it does not run so, or has an operation of another domain or a graph inside.
    """
    import onnx

    model = onnx.load(str(path))
    if any(_is_strange(node) for node in model.graph.node):
        return None
    counted = [node for node in model.graph.node if node.op_type in CONVOLUTIONS + PRODUCTS]
    weights = {one.name: tuple(one.dims) for one in model.graph.initializer}
    wanted = dict.fromkeys(name for node in counted for name in (*_operands(node), node.output[0]))
    inside = [name for name in wanted if name not in weights and name not in given]
    shapes = _run_shapes(model, inside, given)
    if shapes is None:
        return None
    known = weights | {name: one.shape for name, one in given.items()} | shapes
    return sum(_operations(node, known) for node in counted)


def _is_strange(node: Any) -> bool:
    return node.domain not in KNOWN_DOMAINS or any(one.type in (one.GRAPH, one.GRAPHS) for one in node.attribute)


def _operands(node: Any) -> tuple[str, str]:
    """The two things that are multiplied."""
    return node.input[0], node.input[SECOND.get(node.op_type, 1)]


def _run_shapes(
    model: Any, names: Sequence[str], given: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]] | None:
    """Shapes of what is inside of a graph in one pass; None if it does not run so."""
    import onnx
    import onnxruntime

    there = {one.name for one in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = SILENT, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(list(names), dict(given)) if names else []
    except Exception:  # onnxruntime's own classes have no other base; nor does protobuf's for more than 2 GiB
        return None
    return {name: tuple(one.shape) for name, one in zip(names, found, strict=True)}


def _operations(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Those of a convolution or a matrix product."""
    first, second = (shapes[name] for name in _operands(node))
    result = shapes[node.output[0]]
    if node.op_type in CONVOLUTIONS:
        return 2 * prod(result) * prod(second[1:])  # weights are (out, in / groups, sides…)
    turned = node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute)
    return 2 * prod(result) * first[-2 if turned else -1]


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (one.t for one in node.attribute if one.HasField("t"))
