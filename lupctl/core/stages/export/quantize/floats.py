"""Layers of a quantised graph back in float, as they were before."""

from collections.abc import Collection, Sequence
from typing import Any


def leave_in_float(quantized: Any, folded: Any, names: Collection[str]) -> Any:
    """A quantised graph in which some nodes take and keep numbers as before; the nodes around them stay in int8.

    That takes milliseconds, and quantising a graph again seconds.

    Args:
        quantized: an `onnx.ModelProto` with pairs of QuantizeLinear and DequantizeLinear.
        folded: what it was made from, with the same names.
        names: of the nodes.
    """
    model = type(quantized)()
    model.CopyFrom(quantized)
    if not names:
        return model
    graph = model.graph
    before = {node.name: node for node in folded.graph.node}
    was_made_by, is_made_by = (
        {output: node for node in some.node for output in node.output} for some in (folded.graph, graph)
    )
    weights = {one.name: one for one in folded.graph.initializer}
    known = {one.name for one in graph.initializer}
    nodes = []

    def restore(tensor: str) -> str:
        """The name of what a node took before; weights, and rectifiers that int8 made superfluous, are brought back."""
        if tensor in weights:
            # A bias that is in int32 now keeps its name.
            name = f"{tensor}_in_float" if tensor in is_made_by else tensor
            if name not in known:
                known.add(name)
                graph.initializer.append(weights[tensor])
                graph.initializer[-1].name = name
            return name
        was, now = was_made_by.get(tensor), is_made_by.get(tensor)
        if was is None or now is None or was.op_type == now.op_type:
            return tensor
        # Its values are those before the rectifier, which conversion to uint8 cuts off at 0.
        rectified = f"{tensor}_in_float"
        if rectified not in known:
            known.add(rectified)
            inputs = [tensor, *map(restore, was.input[1:])]
            nodes.append(_copy(was, inputs=inputs, outputs=[rectified]))
        return rectified

    for node in graph.node:
        if node.name in names:
            node.input[:] = [restore(tensor) for tensor in before[node.name].input]
        nodes.append(_copy(node, inputs=node.input, outputs=node.output))
    del graph.node[:]
    graph.node.extend(nodes)
    remove_unused(model)
    return model


def _copy(node: Any, *, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """A node that outlives its graph."""
    made = type(node)()
    made.CopyFrom(node)
    made.input[:], made.output[:] = list(inputs), list(outputs)
    return made


def remove_unused(model: Any) -> None:
    """Removes nodes and constants that no output depends on; modifies an `onnx.ModelProto` without inner graphs."""
    graph = model.graph
    needed = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    constants = [one for one in graph.initializer if one.name in needed]
    constants = [type(one).FromString(one.SerializeToString()) for one in constants]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
