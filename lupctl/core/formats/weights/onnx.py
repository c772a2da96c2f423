"""ONNX files: a network that runs without lupctl, with the record of every lupctl file in its metadata.

onnx, onnxruntime and onnxscript are an extra; they are imported where they are used.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.documents import parse_json
from lupctl.core.system.telemetry import forbid_telemetry

ONNX_FORMAT: Final = 1
ONNX_SUFFIX: Final = ".onnx"
RECORD_KEY: Final = "lupctl"
PACKAGES: Final = ("onnx", "onnxruntime", "onnxscript")
INPUT, CAMERAS, OUTPUT = "images", "cameras", "features"
Inputs = dict[str, NDArray[Any]]
# onnxruntime prints remarks about the machine on stderr unless only errors (3) are requested.
ERRORS_ONLY: Final = 3


def check_packages(names: Sequence[str] = PACKAGES) -> None:
    """Fail early if the extra is missing.

    Args:
        names: those of its packages that are needed.

    Raises:
        UsageError: one of them is not installed.
    """
    forbid_telemetry()
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"an ONNX file needs the package {name}, which is not installed", hint="pip install 'lupctl[export]'"
            ) from error


def forget_origins(model: Any) -> None:
    """Remove what the exporter records for each operation: lines of source code, with paths of this machine.

    Args:
        model: an `onnx.ModelProto`; modified.
    """
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")


def write_model(path: Path, model: Any, record: Mapping[str, Any], *, description: str) -> None:
    """Write a model with its record; the same model and record give the same bytes.

    Args:
        path: the file.
        model: an `onnx.ModelProto`; its producer, description and metadata are set here.
        record: JSON.
        description: text for people who open the file in a viewer.
    """
    import onnx

    model.producer_name, model.producer_version = "lupctl", version("lupctl")
    model.doc_string = description
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    onnx.helper.set_model_props(model, {RECORD_KEY: text})
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_model(path: Path) -> None:
    """Check a whole file with onnx: every operation, type and shape."""
    import onnx

    onnx.checker.check_model(str(path), full_check=True)


def run_model(path: Path, batches: Sequence[Inputs]) -> list[NDArray[np.float32]]:
    """Features that onnxruntime computes from batches of images on the CPU.

    Args:
        path: the file.
        batches: the inputs by name; `images` is (B, H, W, 3) RGB.

    Returns:
        (B, D) for each batch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run([OUTPUT], batch)[0] for batch in batches]


def read_record(path: Path) -> dict[str, Any]:
    """The record of an exported file.

    Raises:
        UsageError: the extra is missing.
        DataError: there is no such file.
        FormatError: not an ONNX file, or not one of this lupctl.
    """
    check_packages(PACKAGES[:1])
    import onnx
    from google.protobuf.message import DecodeError

    hint = "lupctl model export CHECKPOINT makes one"
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}", hint=hint)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise FormatError(f"{path}: not a complete ONNX file", hint=hint) from error
    if not model.graph.node:
        raise FormatError(f"{path}: not a complete ONNX file", hint=hint)
    text = {entry.key: entry.value for entry in model.metadata_props}.get(RECORD_KEY)
    if text is None:
        raise FormatError(f"{path}: an ONNX file without lupctl's record", hint=hint)
    return parse_record(text, path)


def parse_record(text: str, path: Path) -> dict[str, Any]:
    """The record of an exported file from its text there.

    Raises:
        FormatError: it is damaged, or not of this format.
    """
    hint = "lupctl model export CHECKPOINT makes one"
    try:
        record: dict[str, Any] = parse_json(text, dict)
    except ValueError as error:
        raise FormatError(f"{path}: lupctl's record is damaged ({error})", hint=hint) from error
    if record.get("format") != ONNX_FORMAT:
        raise FormatError(f"{path}: format {record.get('format')}; this lupctl reads format {ONNX_FORMAT}", hint=hint)
    if not isinstance(record.get("kind"), str):
        raise FormatError(f"{path}: lupctl's record is damaged (it does not say what the file is)", hint=hint)
    return record
