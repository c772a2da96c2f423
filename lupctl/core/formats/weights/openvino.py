"""Files of OpenVINO's format: a graph in XML and its weights next to it, with lupctl's record in the graph."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.onnx import RECORD_KEY, parse_record
from lupctl.core.formats.weights.runtimes.openvino import check_openvino, read_model_texts, read_openvino


def write_openvino(path: Path, model: Any, record: Mapping[str, Any], *, in_halves: bool) -> None:
    """Write a model with its record.

    Args:
        path: the graph's file; its weights are next to it.
        model: an `openvino.Model`; its record is set here.
        record: JSON.
        in_halves: keeps weights in float16; they are computed with in float32.
    """
    openvino = check_openvino()
    model.set_rt_info(json.dumps(record, sort_keys=True), [RECORD_KEY])
    openvino.save_model(model, path, compress_to_fp16=in_halves)


def read_openvino_record(path: Path) -> dict[str, Any]:
    """The record of an exported file.

    Raises:
        UsageError: the package is missing.
        DataError: there is no such file.
        FormatError: not a file of this format, or not one of this lupctl.
    """
    text = read_model_texts(read_openvino(path), path).get(RECORD_KEY)
    if text is None:
        raise FormatError(
            f"{path}: an OpenVINO file without lupctl's record", hint="lupctl model export CHECKPOINT makes one"
        )
    return parse_record(text, path)
