"""Networks in OpenVINO's own format, or in ONNX, run by OpenVINO.

The package is an extra; it is imported where it is used.
"""

import importlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from lupctl.core.choices import Runtime
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.weights.onnx import RECORD_KEY
from lupctl.core.formats.weights.runtimes.session import Port
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.jobs.signal_stack import kept_signal_stack
from lupctl.core.system.telemetry import forbid_telemetry

# The graph; its weights are next to it, in a file of the same name.
OPENVINO_SUFFIX: Final = ".xml"
WEIGHTS_SUFFIX: Final = ".bin"
# What OpenVINO says of an operator that it does not have.
UNKNOWN_OPERATOR: Final = re.compile(
    r"No conversion rule found for operations: ([^\s,]+)|Cannot create (\S+) layer|Unsupported operation of type: (\S+)"
)
# Its names for numbers, where numpy's are others.
KINDS: Final = {"f16": "float16", "f32": "float32", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32",
                "i64": "int64"}  # fmt: skip


@dataclass(frozen=True)
class OpenVinoSession:
    """A network that OpenVINO has open.

    Args:
        compiled: an `openvino.CompiledModel`.
        inputs, outputs, metadata: of the file.
        own: each thread's own request, which runs one pass at a time.
    """

    compiled: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]
    own: threading.local = field(default_factory=threading.local, compare=False)

    @property
    def runtime(self) -> Runtime:
        """OpenVINO."""
        return "openvino"

    def run(self, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, from the inputs by name."""
        request = getattr(self.own, "request", None)
        if request is None:
            request = self.own.request = self.compiled.create_infer_request()
        found = request.infer(dict(given), share_inputs=True)  # inputs are read where they are, outputs are copied
        return [found[index] for index in range(len(self.outputs))]


def check_openvino() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    forbid_telemetry()
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise UsageError(
            "OpenVINO's format needs the package openvino, which is not installed",
            hint="pip install 'lupctl[openvino]'",
        ) from error


def open_openvino(path: Path, *, threads: int, side_by_side: int) -> OpenVinoSession:
    """A network in OpenVINO's format or in ONNX on the CPU, computed in float32 where it is not in int8.

    Args:
        path: the file; of OpenVINO's format the graph, whose weights are next to it.
        threads: that one run computes in.
        side_by_side: runs that do not wait for each other.

    Raises:
        UsageError: the package is missing.
        DataError: there is no such file, or no weights next to it.
        FormatError: it is damaged, or has an operator that OpenVINO lacks.
    """
    openvino = check_openvino()
    settings = {
        "NUM_STREAMS": side_by_side,
        "INFERENCE_NUM_THREADS": threads * side_by_side,
        "ENABLE_CPU_PINNING": False,
        # Else it is what the processor does fastest, bfloat16 on some: features would depend on the machine.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = read_openvino(path)
    try:
        with kept_signal_stack():
            compiled = openvino.Core().compile_model(model, "CPU", settings)
        inputs, outputs = _describe(model.inputs), _describe(model.outputs)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise _refuse(path, error) from error
    return OpenVinoSession(compiled, inputs, outputs, read_model_texts(model, path))


def read_openvino(path: Path) -> Any:
    """An `openvino.Model`.

    Raises:
        UsageError, DataError, FormatError: as `open_openvino`.
    """
    openvino = check_openvino()
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}; a network was expected", hint=f"ls {path.parent}")
    weights = path.with_suffix(WEIGHTS_SUFFIX)
    if path.suffix == OPENVINO_SUFFIX and not weights.is_file():
        raise DataError(
            f"{path}: its weights are in {weights.name}, and there is no such file", hint=f"ls {path.parent}"
        )
    try:
        return openvino.Core().read_model(path)
    except (RuntimeError, UnicodeDecodeError) as error:  # the second of a message with names of the file
        raise _refuse(path, error) from error


def _refuse(path: Path, error: Exception) -> FormatError:
    reason = " ".join(str(error).split())
    named = UNKNOWN_OPERATOR.search(reason)
    what = "cannot run it" if named is None else f"lacks its operator {next(filter(None, named.groups()))}"
    return FormatError(f"{path}: OpenVINO {what} ({reason[-200:]})", hint="make it again: lupctl model export")


def read_model_texts(model: Any, path: Path) -> dict[str, str]:
    """lupctl's record in a model, if it has one.

    Raises:
        FormatError: it is no text.
    """
    try:
        return {RECORD_KEY: model.get_rt_info([RECORD_KEY]).astype(str)} if model.has_rt_info([RECORD_KEY]) else {}
    except (RuntimeError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(
            f"{path}: lupctl's record is damaged ({reason})", hint="export it again: lupctl model export"
        ) from error


def _describe(ports: Any) -> tuple[Port, ...]:
    found = []
    for one in ports:
        shape, kind = one.get_partial_shape(), one.get_element_type().get_type_name()
        known = (
            None if shape.rank.is_dynamic else tuple(side.get_length() if side.is_static else None for side in shape)
        )
        found.append(Port(one.get_any_name(), KINDS.get(kind, kind), known))
    return tuple(found)
