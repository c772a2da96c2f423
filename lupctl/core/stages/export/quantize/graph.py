"""What of a graph can be computed in int8, and its shape before and after that."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Final

from lupctl.core.errors import DataError
from lupctl.core.formats.weights.onnx import ERRORS_ONLY, forget_origins

# Operators whose weights are kept in int8.
WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
# Operators between them that only pick, join or average numbers of one range. Sums and gates stay in float: in int8
# they moved OSNet's features more (0.0036 of the cosine, not 0.0031), and OpenVINO took 1.4 times as long.
BETWEEN: Final = ("MaxPool", "AveragePool", "Relu", "Concat")
# Bytes of a layer in int8 besides its weights: a scale for each output, and names and shapes of its scales and nodes.
SCALE_BYTES, LAYER_BYTES = 4, 250
# A transformer adds numbers of very different sizes to one another; only its weighted layers are quantised.
OF_TRANSFORMERS: Final = "LayerNormalization"
# The oldest operator set with a scale for each channel, and the one that older graphs are brought to.
PER_CHANNEL, UPGRADED = 13, 17


@dataclass(frozen=True)
class Layers:
    """The nodes of a graph that can be computed in int8.

    Args:
        weighted: names of nodes with weights, in the order of the graph, by the names that people know them by.
        between: names of the nodes between them.
        outside: names of nodes before the first or after the last of them.
    """

    weighted: dict[str, str]
    between: tuple[str, ...]
    outside: tuple[str, ...]


def fold(source: Path, folder: Path) -> Any:
    """A graph with its constants computed and its batch norms inside the convolutions before them.

    Args:
        source: an ONNX file that onnxruntime can open.
        folder: for files that are needed on the way.

    Returns:
        an `onnx.ModelProto` whose nodes all have names.
    """
    import onnx
    import onnx.version_converter
    import onnxruntime

    model = onnx.load(str(source))
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if version < PER_CHANNEL:
        model = onnx.version_converter.convert_version(model, UPGRADED)
    whole, folded = folder / "whole.onnx", folder / "folded.onnx"
    onnx.save(model, str(whole))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(whole), options, providers=["CPUExecutionProvider"])
    model = onnx.shape_inference.infer_shapes(onnx.load(str(folded)))
    whole.unlink()
    folded.unlink()
    forget_origins(model)
    del model.metadata_props[:]
    used = {node.domain for node in model.graph.node} | {""}
    versions = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(versions)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def find_layers(model: Any, *, name: str) -> Layers:
    """The nodes of a folded graph that can be computed in int8.

    Args:
        model: an `onnx.ModelProto`.
        name: of its file, for errors.

    Raises:
        DataError: there are none.
    """
    constants = {one.name for one in model.graph.initializer}
    nodes = list(model.graph.node)
    weighted = {node.name: _known_as(node) for node in nodes if node.op_type in WEIGHTED and node.input[1] in constants}
    if not weighted:
        raise DataError(
            f"{name}: no convolution and no matrix of weights to keep in fewer bits",
            hint=f"it is as small as it can be; lupctl dump {name} DATASET runs it",
        )
    before, after = _reached(nodes, weighted), _reached(reversed(nodes), weighted, upwards=True)
    inside = before & after
    kinds = () if any(node.op_type == OF_TRANSFORMERS for node in nodes) else BETWEEN
    return Layers(
        weighted=weighted,
        between=tuple(
            node.name for node in nodes if node.name in inside and node.op_type in kinds and node.name not in weighted
        ),
        outside=tuple(node.name for node in nodes if node.name not in inside | set(weighted)),
    )


def choose_layers(model: Any, layers: Layers, *, name: str) -> Layers:
    """The layers that are smaller in int8; of the others, scales and their names take more than the weights give.

    Args:
        model: a folded `onnx.ModelProto`.
        layers: of it.
        name: of its file, for errors.

    Raises:
        DataError: there are none.
    """
    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    chosen = {}
    for node in model.graph.node:
        if node.name in layers.weighted:
            shape = shapes[node.input[1]]
            outputs = shape[0] if has_rows(node) else shape[-1]
            if 3 * prod(shape) > SCALE_BYTES * outputs + LAYER_BYTES:
                chosen[node.name] = layers.weighted[node.name]
    if not chosen:
        raise DataError(
            f"{name}: no layer is smaller in int8", hint=f"--precision float16; lupctl dump {name} DATASET runs it"
        )
    return replace(layers, weighted=chosen)


def has_rows(node: Any) -> bool:
    """Whether the first axis of a node's weights are its outputs."""
    is_turned = any(one.name == "transB" and one.i == 1 for one in node.attribute)
    return bool(node.op_type == "Conv" or (node.op_type == "Gemm" and is_turned))


def _known_as(node: Any) -> str:
    """The module that a node's weights belong to, where their name says so; else the node's own name."""
    weights = str(node.input[1])
    if weights.endswith(".weight") and "::" not in weights:
        return weights.removeprefix("network.").removesuffix(".weight")
    return str(node.name)


def _reached(nodes: Iterable[Any], weighted: Iterable[str], *, upwards: bool = False) -> set[str]:
    """Names of nodes that depend on a weighted node, or that one depends on; nodes come in an order to match."""
    sources, tensors, found = set(weighted), set[str](), set[str]()
    for node in nodes:
        comes_from, goes_to = (node.output, node.input) if upwards else (node.input, node.output)
        is_reached = not tensors.isdisjoint(comes_from)
        if is_reached:
            found.add(node.name)
        if is_reached or node.name in sources:
            tensors.update(goes_to)
    return found


def cast_first(model: Any) -> None:
    """Converts pixels before they are put in another order: TensorRT takes no bytes in any other operation.

    Args:
        model: an `onnx.ModelProto`; modified where its input is transposed and then converted.
    """
    graph = model.graph
    given = {one.name for one in graph.input}
    takers: dict[str, list[int]] = {}
    for at, node in enumerate(graph.node):
        for name in node.input:
            takers.setdefault(name, []).append(at)
    for place, node in enumerate(graph.node):
        after = takers.get(node.output[0], [])
        if node.op_type != "Transpose" or node.input[0] not in given or len(after) != 1:
            continue
        turn, cast = (type(node).FromString(graph.node[at].SerializeToString()) for at in (place, after[0]))
        if cast.op_type == "Cast":
            cast.input[0], turn.output[0] = node.input[0], cast.output[0]
            cast.output[0] = turn.input[0] = node.output[0]
            graph.node[place].CopyFrom(cast)
            graph.node[after[0]].CopyFrom(turn)
    del graph.value_info[:]  # types from before


def shorten_names(model: Any) -> None:
    """Gives tensors and nodes the shortest names: those of int8 scales make up half of a small network's file.

    Args:
        model: an `onnx.ModelProto` without inner graphs; modified. Inputs and outputs keep their names.
    """
    graph = model.graph
    short: dict[str, str] = {one.name: one.name for one in (*graph.input, *graph.output)} | {"": ""}
    del graph.value_info[:]

    def rename(name: str) -> str:
        return short.setdefault(name, f"{len(short):x}")

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [rename(name) for name in names]
