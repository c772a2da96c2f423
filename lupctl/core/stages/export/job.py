"""The settings and the result of an export."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lupctl.core.choices import CalibrationRule, CameraUse, ExportFormat, ExportPrecision
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.onnx import ONNX_SUFFIX, check_packages
from lupctl.core.formats.weights.runtimes.open import RUNTIME_OF
from lupctl.core.formats.weights.runtimes.openvino import OPENVINO_SUFFIX, WEIGHTS_SUFFIX, check_openvino
from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels
from lupctl.core.stages.export.engine import ENGINE_SUFFIX, Engine
from lupctl.core.system.disk.atomic import check_absent

SUFFIXES: Final[dict[ExportFormat, str]] = {
    "onnx": ONNX_SUFFIX, "openvino": OPENVINO_SUFFIX, "tensorrt": ONNX_SUFFIX,
}  # fmt: skip


def default_out(network: Path, format_: ExportFormat, precision: ExportPrecision) -> Path:
    """The file next to a network; one that is not in float32 says so in its name, and none is the network itself.

    >>> str(default_out(Path("run/checkpoint.safetensors"), "onnx", "int8"))
    'run/checkpoint.int8.onnx'
    >>> str(default_out(Path("osnet.onnx"), "onnx", "float32"))
    'osnet-lupctl.onnx'
    """
    suffix = SUFFIXES[format_]
    found = network.with_suffix(suffix if precision == "float32" else f".{precision}{suffix}")
    return found if found != network else network.with_name(f"{network.stem}-lupctl{suffix}")


@dataclass(frozen=True)
class ExportJob:
    """The settings of one export.

    Args:
        checkpoint: the network; a checkpoint, or an ONNX file.
        out: the file; of OpenVINO's format the graph, whose weights are next to it, and of TensorRT's the ONNX file,
            whose engine is next to it.
        cameras: for a network that takes cameras: `mean` gives every image the row for unknown cameras, `none` no row,
            `known` the row that a second input names; None for `mean`.
        format: of the file.
        precision: of its weights; int8 also of its passes.
        calibrate: the pack whose images give the ranges of int8.
        rule: what of the values these ranges cover; None for `percentile`.
        prove: the pack that the network is tested on before the file is written; its images cannot calibrate.
        foreign: how images are prepared for an ONNX file of another program.
        force: overwrite.
        command: the command line, for the record.
    """

    checkpoint: Path
    out: Path
    cameras: CameraUse | None = None
    format: ExportFormat = "onnx"
    precision: ExportPrecision = "float32"
    calibrate: Path | None = None
    rule: CalibrationRule | None = None
    prove: Path | None = None
    foreign: ForeignPixels = field(default_factory=ForeignPixels)
    force: bool = False
    command: tuple[str, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether the network is not a checkpoint."""
        return self.checkpoint.suffix in RUNTIME_OF

    @property
    def used_rule(self) -> CalibrationRule:
        """What of the values the ranges of int8 cover."""
        return self.rule or "percentile"

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written; the last one makes it complete. The engine of TensorRT's format may be missing."""
        beside = {"openvino": WEIGHTS_SUFFIX, "tensorrt": ENGINE_SUFFIX}.get(self.format)
        return (self.out,) if beside is None else (self.out.with_suffix(beside), self.out)


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Args:
        path, bytes: the file and its size; of OpenVINO's format with its weights.
        network: its description.
        height, width: of the images it takes.
        dim: length of a feature.
        difference: largest difference from PyTorch, or from the file that it was made from, over all values of all
            features of unit length, on images of random pixels.
        record: the record in the file's metadata.
        tensorrt: the engine, if that was the format.
    """

    path: Path
    bytes: int
    network: str
    height: int
    width: int
    dim: int
    difference: float
    record: dict[str, Any]
    tensorrt: Engine | None = None


def check_job(job: ExportJob) -> None:
    """Report at once the errors that would otherwise come up after all the work.

    Raises:
        UsageError: an extra is missing, the output exists, or its name does not end as that of its format; int8
            without images to calibrate with, or such images or a rule for another precision.
    """
    check_packages(("onnx", "onnxruntime") if job.is_foreign else ("onnx", "onnxruntime", "onnxscript"))
    if job.format == "openvino":
        check_openvino()
    if job.checkpoint.suffix == OPENVINO_SUFFIX:
        raise UsageError(
            f"{job.checkpoint}: exported to OpenVINO already; a run, a checkpoint or an ONNX file was expected",
            hint="name what it was made from",
        )
    _check_out(job)
    if job.precision == "int8" and job.calibrate is None:
        raise UsageError(
            "--precision int8 takes the ranges of its numbers from images of a pack",
            hint="add --calibrate PACK; or --precision float16, which needs none",
        )
    if job.precision != "int8" and job.calibrate is not None:
        raise UsageError(
            f"--calibrate: {job.precision} has no ranges to take from images", hint="leave it out, or --precision int8"
        )
    if job.precision != "int8" and job.rule is not None:
        raise UsageError(
            f"--calibration: {job.precision} has no ranges to take from images",
            hint="leave it out, or --precision int8 --calibrate PACK",
        )


def _check_out(job: ExportJob) -> None:
    """Refuses a path that cannot be that of the file.

    Raises:
        UsageError: its name does not end as that of its format, or it is there already.
    """
    suffix, name = SUFFIXES[job.format], default_out(job.checkpoint, job.format, job.precision).name
    if job.out.suffix != suffix:
        meant = job.out / name if job.out.is_dir() else job.out.with_name(f"{job.out.stem}{suffix}")
        raise UsageError(f"{job.out}: expected a name that ends in {suffix}", hint=f"--out {shlex.quote(str(meant))}")
    other = job.out.with_name(f"{job.out.stem}-lupctl{suffix}")
    if job.out.resolve() == job.checkpoint.resolve():
        raise UsageError(f"{job.out}: is the network that would be exported", hint=f"--out {shlex.quote(str(other))}")
    for path in job.files:
        if path.is_dir():
            raise UsageError(
                f"{path}: is a folder, and would be overwritten by a file",
                hint=f"move it away, or name another file: --out {shlex.quote(str(other))}",
            )
        check_absent(path, force=job.force)
