"""The settings and the result of an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupctl.core.choices import CameraUse
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.onnx import ONNX_SUFFIX, check_packages
from lupctl.core.system.disk.atomic import check_absent


@dataclass(frozen=True)
class ExportJob:
    """The settings of one export.

    Args:
        checkpoint: the network.
        out: the ONNX file.
        cameras: for a network that takes cameras: `mean` gives every image the row for unknown cameras, `none` no row,
            `known` the row that a second input names; None for `mean`.
        force: overwrite.
        command: the command line, for the record.
    """

    checkpoint: Path
    out: Path
    cameras: CameraUse | None = None
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Args:
        path, bytes: the file and its size.
        network: its description.
        height, width: of the images it takes.
        dim: length of a feature.
        difference: largest difference between onnxruntime and PyTorch over all values of all features.
        record: the record in the file's metadata.
    """

    path: Path
    bytes: int
    network: str
    height: int
    width: int
    dim: int
    difference: float
    record: dict[str, Any]


def check_job(job: ExportJob) -> None:
    """Report at once the errors that would otherwise come up after all the work.

    Raises:
        UsageError: the extra is missing, the output exists, or its name does not end in .onnx.
    """
    check_packages()
    check_absent(job.out, force=job.force)
    if job.out.suffix != ONNX_SUFFIX:
        raise UsageError(f"{job.out}: expected a name that ends in {ONNX_SUFFIX}", hint=f"--out {job.out.stem}.onnx")
