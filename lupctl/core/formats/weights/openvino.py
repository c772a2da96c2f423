"""Files of OpenVINO's format: a graph in XML and its weights next to it, with lupctl's record in the graph."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.onnx import RECORD_KEY, parse_record
from lupctl.core.formats.weights.runtimes.open import network_files
from lupctl.core.formats.weights.runtimes.openvino import check_openvino, read_model_texts, read_openvino

# More than may be left on a disk after the part that did fit.
PROBE_BYTES: Final = 1 << 20


def write_openvino(path: Path, model: Any, record: Mapping[str, Any], *, in_halves: bool) -> None:
    """Write a model with its record.

    Args:
        path: the graph's file; its weights are next to it.
        model: an `openvino.Model`; its record is set here.
        record: JSON.
        in_halves: keeps weights in float16; they are computed with in float32.

    Raises:
        OSError: the disk is full or refuses the write.
    """
    openvino = check_openvino()
    model.set_rt_info(json.dumps(record, sort_keys=True), [RECORD_KEY])
    try:
        openvino.save_model(model, path, compress_to_fp16=in_halves)
    except RuntimeError:
        for one in network_files(path):
            _say_why(one)
        raise


def _say_why(path: Path) -> None:
    """Lets the system name its reason for not writing a file, of which OpenVINO only says that there was one.

    Raises:
        OSError: there is no room for a little more.
    """
    with path.open("ab") as stream:
        stream.write(bytes(PROBE_BYTES))
        stream.flush()
        os.fsync(stream.fileno())


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
