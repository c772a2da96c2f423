"""Exported networks, run without lupctl."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


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
