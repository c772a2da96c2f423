"""A graph whose weights and passes are in float16."""

from typing import Any

from lupctl.core.stages.export.quantize.graph import Layers
from lupctl.core.stages.export.quiet import silenced


def halve(model: Any, layers: Layers) -> Any:
    """A folded graph in float16 from its first weighted layer to its last; inputs and outputs keep their types.

    Pixel constants before them and norms and lengths after them stay in float32: the square of a feature may be more
    than float16 can hold.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with silenced():
        halves = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(layers.outside))
    del halves.graph.value_info[:]  # types from before
    sorted_halves = ONNXModel(halves)
    sorted_halves.topological_sort()  # conversions were added at the end
    return sorted_halves.model
