"""Exported networks, run without lupctl; and tiny networks of other programs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, PATCH, DIM = 32, 16, 8, 5
WEIGHTS = np.random.default_rng(0).standard_normal((DIM, 3, PATCH, PATCH)).astype(np.float32)
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def run(path: Path, images: NDArray[np.uint8], **more: NDArray[Any]) -> NDArray[np.float32]:
    """The features that onnxruntime gives on one thread, (N, D).

    Args:
        path: of the file.
        images: (N, height, width, 3).
        more: other inputs, by name.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"images": images, **more})[0]
    return found


def write_foreign(
    path: Path,
    *,
    layout: str = "NCHW",
    kind: str = "float32",
    batch: int | str = "batch",
    sides: tuple[Any, Any] = (HEIGHT, WIDTH),
    **graph: Any,
) -> Path:
    """A network that sums patches of its pixels by weights, rectifies them, and averages over the image."""
    shape = [batch, 3, *sides] if layout == "NCHW" else [batch, *sides, 3]
    nodes = [helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT)]
    if layout == "NHWC":
        nodes += [helper.make_node("Transpose", ["numbers"], ["turned"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("Conv", ["turned" if layout == "NHWC" else "numbers", "w"], ["maps"], strides=[PATCH, PATCH]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        *graph.get("nodes", []),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("images", TYPES[kind], shape), *graph.get("inputs", [])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, DIM]), *graph.get("outputs", [])],
            [numpy_helper.from_array(WEIGHTS, "w"), *graph.get("constants", [])],
        ),
        opset_imports=[helper.make_opsetid("", 17), *graph.get("opsets", [])],
        ir_version=8,
    )
    onnx.save(model, str(path))
    return path
