"""Opening a network's file with the runtime that it is for, or with another one that can read it."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lupctl.core.choices import ExportFormat, Runtime
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.onnx import ONNX_SUFFIX
from lupctl.core.formats.weights.runtimes.onnx import open_onnxruntime, read_texts
from lupctl.core.formats.weights.runtimes.openvino import OPENVINO_SUFFIX, WEIGHTS_SUFFIX, open_openvino
from lupctl.core.formats.weights.runtimes.session import Session
from lupctl.core.system.disk.atomic import file_fingerprint

RUNTIME_OF: Final[dict[str, Runtime]] = {ONNX_SUFFIX: "onnxruntime", OPENVINO_SUFFIX: "openvino"}

FORMAT_OF: Final[dict[Runtime, ExportFormat]] = {"onnxruntime": "onnx", "openvino": "openvino"}


def runs_alone(path: Path) -> bool:
    """Whether a file is a network that a runtime runs without PyTorch, by its name.

    >>> runs_alone(Path("a.onnx")), runs_alone(Path("a.xml")), runs_alone(Path("a.safetensors"))
    (True, True, False)
    """
    return path.suffix in RUNTIME_OF


def open_session(path: Path, *, runtime: Runtime | None = None, threads: int = 1, side_by_side: int = 1) -> Session:
    """A network's file, ready to run on the CPU.

    One thread for each run gives the same features however many cores there are.

    Args:
        path: the file; of OpenVINO's format the graph.
        runtime: what runs it; None for that of its format. OpenVINO also runs ONNX.
        threads: that one run computes in.
        side_by_side: runs of several threads that do not wait for each other.

    Raises:
        UsageError: the runtime is not installed, or does not read this format.
        DataError: there is no such file, or it keeps weights outside of its folder.
        FormatError: it is damaged, or has an operator that the runtime lacks.
    """
    own = RUNTIME_OF.get(path.suffix)
    if own is None or (runtime == "onnxruntime" and own != runtime):
        raise UsageError(
            f"{path}: {runtime or 'a runtime'} reads {ONNX_SUFFIX}"
            + ("" if runtime == "onnxruntime" else f" and {OPENVINO_SUFFIX}"),
            hint="make one: lupctl model export RUN --out NET.onnx",
        )
    if (runtime or own) == "onnxruntime":
        return open_onnxruntime(path, threads=threads)
    texts = read_texts(path) if own == "onnxruntime" else None
    found = open_openvino(path, threads=threads, side_by_side=side_by_side)
    return found if texts is None else replace(found, metadata=texts)


def network_files(path: Path) -> tuple[Path, ...]:
    """The files of a network: of OpenVINO's format the graph and its weights.

    >>> [str(one) for one in network_files(Path("a.xml"))]
    ['a.xml', 'a.bin']
    """
    return (path, path.with_suffix(WEIGHTS_SUFFIX)) if path.suffix == OPENVINO_SUFFIX else (path,)


def network_bytes(path: Path) -> int:
    """The size of a network's files."""
    return sum(one.stat().st_size for one in network_files(path))


def exported_fingerprint(record: Mapping[str, Any], path: Path) -> str:
    """The fingerprint of an exported network: that of its checkpoint, whose features it gives, if it is not in int8.

    In int8 it is another network: its cosines are others, and so are the thresholds on them.

    Raises:
        KeyError, AttributeError: the record is damaged.
    """
    parent = record["parents"].get("checkpoint")
    return network_fingerprint(path) if parent is None or record.get("precision") == "int8" else str(parent)


def network_fingerprint(path: Path) -> str:
    """The fingerprint of a network's file, or of its files."""
    prints = [file_fingerprint(one) for one in network_files(path)]
    return prints[0] if len(prints) == 1 else f"sha256:{hashlib.sha256(''.join(prints).encode()).hexdigest()}"
