"""Networks in ONNX, run by onnxruntime. The packages are an extra; they are imported where they are used."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from lupctl.core.choices import Runtime
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.onnx import ERRORS_ONLY, check_packages
from lupctl.core.formats.weights.runtimes.session import Port
from lupctl.core.system.disk.reading import say_missing

CHECK: Final = "import onnx; onnx.checker.check_model({!r})"
# What onnxruntime says of an operator that it does not have.
UNKNOWN_OPERATOR: Final = re.compile(r"implementation for (\S+?)\(\d+\)|error: (\S+?)\(-?\d+\) is not a registered")
# Types of numbers that numpy calls by another name.
KINDS: Final = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class OnnxSession:
    """A network that onnxruntime has open.

    Args:
        session: an `onnxruntime.InferenceSession`.
        inputs, outputs, metadata: of the file.
    """

    session: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]

    @property
    def runtime(self) -> Runtime:
        """onnxruntime."""
        return "onnxruntime"

    def run(self, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, from the inputs by name."""
        found: list[NDArray[Any]] = self.session.run(None, dict(given))
        return found


def open_onnxruntime(path: Path, *, threads: int) -> OnnxSession:
    """A network in ONNX on the CPU.

    Args:
        path: the file.
        threads: that one run computes in.

    Raises:
        UsageError: the extra is missing.
        DataError: there is no such file, or it keeps weights outside of its folder.
        FormatError: it is no ONNX file, is damaged, or has an operator that onnxruntime lacks.
    """
    check_packages(("onnx", "onnxruntime"))
    import onnxruntime

    check_external(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = ERRORS_ONLY, threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs, outputs = (tuple(map(_describe, ports)) for ports in (session.get_inputs(), session.get_outputs()))
        texts = session.get_modelmeta().custom_metadata_map  # a text that is none is an error, too
    except Exception as error:  # onnxruntime's own classes have no other base
        reason = " ".join(str(error).split())
        named = UNKNOWN_OPERATOR.search(reason)
        what = f"lacks its operator {named[1] or named[2]}" if named else "cannot run it"
        raise FormatError(f"{path}: onnxruntime {what} ({reason})", hint=_hint(path)) from error
    return OnnxSession(session, inputs, outputs, texts)


def _describe(one: Any) -> Port:
    kind = str(one.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, str) or (isinstance(side, int) and side > 0) else None for side in one.shape)
    return Port(str(one.name), KINDS.get(kind, kind), shape)


def read_texts(path: Path) -> dict[str, str]:
    """The texts that a file keeps about itself, by name.

    Raises:
        UsageError: the package onnx is missing.
        DataError, FormatError: as `check_external`.
    """
    check_packages(("onnx",))
    return {entry.key: entry.value for entry in check_external(path).metadata_props}


def check_external(path: Path) -> Any:
    """A file's `onnx.ModelProto` without weights of other files, which are refused outside of its folder.

    Raises:
        DataError: there is no such file, or there are such weights.
        FormatError: it is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}; an ONNX network was expected", hint=f"ls {path.parent}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise FormatError(f"{path}: not a complete ONNX file", hint=_hint(path)) from error
    if not model.graph.node:
        raise FormatError(f"{path}: not a complete ONNX file", hint=_hint(path))
    folder = path.resolve().parent
    for tensor in _each_tensor(model.graph):
        for name in (entry.value for entry in tensor.external_data if entry.key == "location"):
            place = (folder / name).resolve()
            if not place.is_relative_to(folder):
                raise DataError(f"{path}: keeps weights in {name}, outside of its folder", hint="export it in one file")
            if not place.is_file():
                raise DataError(f"{path}: keeps weights in {name}, and there is no such file", hint=f"ls {folder}")
    return model


def _hint(path: Path) -> str:
    return f"check it: {shlex.join(['python', '-c', CHECK.format(str(path))])}"


def _each_tensor(graph: Any) -> Iterator[Any]:
    """The constants of a graph, of its nodes and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _each_tensor(inner)
