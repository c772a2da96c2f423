"""What goes into each layer of a graph, over calibration images."""

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from lupctl.core.formats.weights.onnx import ERRORS_ONLY, Inputs
from lupctl.core.stages.export.quantize.graph import Layers


def each_input(folded: Any, layers: Layers, batches: Sequence[Inputs]) -> Iterator[dict[str, NDArray[Any]]]:
    """The tensors that weighted layers take, by name, of one batch after the other.

    Args:
        folded: the graph in float32, an `onnx.ModelProto`.
        layers: of it.
        batches: its inputs by name.
    """
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(folded)
    shown = {one.name for one in model.graph.output}
    given = {one.name for one in model.graph.input}
    for name in dict.fromkeys(node.input[0] for node in model.graph.node if node.name in layers.weighted):
        if name not in shown | given:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    for batch in batches:
        yield dict(zip(names, session.run(None, batch), strict=True)) | {name: batch[name] for name in given}
