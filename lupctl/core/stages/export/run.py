"""Export of a network as a file that runs without PyTorch, checked to give the same features, or nearly the same."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ExportPrecision, Runtime
from lupctl.core.errors import DataError
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.formats.weights.onnx import check_model, write_model
from lupctl.core.formats.weights.openvino import write_openvino
from lupctl.core.formats.weights.runtimes.open import open_session
from lupctl.core.formats.weights.runtimes.openvino import read_openvino
from lupctl.core.ranking.retrieval.onnx.open import open_onnx
from lupctl.core.stages.export.calibration import Calibration, choose_calibration
from lupctl.core.stages.export.cameras import choose_camera
from lupctl.core.stages.export.engine import (
    ENGINE_SUFFIX,
    TRTEXEC,
    Engine,
    build_engine,
    describe_shapes,
    find_trtexec,
    write_command,
)
from lupctl.core.stages.export.job import ExportJob, ExportResult, check_job
from lupctl.core.stages.export.precision import change_precision
from lupctl.core.stages.export.quantize.graph import cast_first
from lupctl.core.stages.export.record import TOLERANCE, describe_check
from lupctl.core.stages.export.source import Source, open_cpu, open_source
from lupctl.core.stages.export.trial import largest_difference
from lupctl.core.system.disk.atomic import atomic_path, check_writable, disk_errors_named
from lupctl.core.system.jobs.stopping import never_stop, stop_at_once
from lupctl.core.system.progress.lines import Progress

# How far features of random pixels may move; of int8 only a test on real images says whether it is too far.
TOLERANCES: Final[dict[ExportPrecision, float]] = {"float32": TOLERANCE, "float16": 1e-2, "int8": 2.0}


def plan_export(job: ExportJob) -> dict[str, Any]:
    """What an export would write; opens the network.

    Raises:
        UsageError: see `check_job`.
        DataError: there are no images to calibrate with.
        FormatError: not a checkpoint, or of a network that this lupctl does not know.
    """
    check_job(job)
    plan: dict[str, Any] = {"checkpoint": str(job.checkpoint), "out": str(job.out)}
    if job.is_foreign:
        found = open_onnx(job.checkpoint, job.foreign)
        view = found.encoder.view
        plan |= {"network": found.description, "height": view.height, "width": view.width}
    else:
        encoder, checkpoint = open_cpu(job.checkpoint)
        given = choose_camera(encoder, job)
        plan |= {"network": describe_network(checkpoint.header), "height": encoder.view.height}
        plan |= {"width": encoder.view.width, **({} if given is None else {"cameras": given.rule})}
    if job.calibrate is not None:
        chosen = choose_calibration(job.calibrate, job.prove)
        plan |= {"calibration": f"{len(chosen.rows)} images of {job.calibrate}, {job.used_rule}"}
    if job.format == "tensorrt":
        tool = find_trtexec()
        old = f"; {job.files[0]} is removed, it is of an earlier export" if job.files[0].exists() else ""
        plan["engine"] = f"not built, {TRTEXEC} is not here{old}" if tool is None else f"{job.files[0]}, by {tool}"
    # An upper limit: classifiers are not exported.
    size = job.checkpoint.stat().st_size
    return plan | {"about_bytes": size // {"float32": 1, "float16": 2, "int8": 4}[job.precision]}


@dataclass(frozen=True)
class Draft:
    """A file that is complete but for what a test of it says, in a folder that is removed.

    Args:
        job: what is exported.
        path: the file.
        model: an `onnx.ModelProto` or an `openvino.Model`.
        source: what it was made from.
        record: of the file.
        difference: of its features, see `ExportResult`.
        shapes: for TensorRT, how many images an engine takes.
        progress: lines and bars.
    """

    job: ExportJob
    path: Path
    model: Any
    source: Source
    record: dict[str, Any]
    difference: float
    shapes: tuple[str, ...]
    progress: Progress

    def finish(self, proof: dict[str, Any] | None = None) -> ExportResult:
        """Moves the file into place, with what a test of it said.

        Raises:
            DataError: the disk is full or refuses the write, or trtexec failed.
            StoppedError: somebody asked to stop while it ran.
        """
        job, record = self.job, self.record
        if proof is not None:
            record = record | {"proof": proof}
            _write(job, self.path, self.model, record, self.source.description)
        engine = self._build_engine() if job.format == "tensorrt" else None
        with never_stop():  # all files or none
            for target in job.files:
                made = self.path.with_name(target.name)
                if not made.exists():  # an engine that was not built; one that is there is of another network
                    if target.exists():
                        target.unlink()
                        self.progress.say(f"{target}: removed, it was of an earlier export")
                    continue
                with atomic_path(target) as partial:
                    shutil.move(made, partial)
        return ExportResult(
            path=job.out,
            bytes=sum(path.stat().st_size for path in job.files if path.suffix != ENGINE_SUFFIX),
            network=self.source.network,
            height=self.source.height,
            width=self.source.width,
            dim=record["features"]["dim"],
            difference=self.difference,
            record=record,
            tensorrt=engine,
        )

    def _build_engine(self) -> Engine:
        """The engine next to the file, where trtexec is here."""
        target, onnx = self.job.files
        tool = find_trtexec()
        if tool is not None:
            made = self.path.with_name(target.name)
            build_engine(tool, self.path, made, self.shapes, name=target, progress=self.progress)
        return Engine(None if tool is None else target, write_command(onnx, target, self.shapes))


def export(job: ExportJob, progress: Progress | None = None) -> ExportResult:
    """Write the network, with pixel constants before it and normalisation after it, and compare it with PyTorch.

    Raises:
        UsageError: see `check_job`.
        FormatError: not a checkpoint, or of a network that this lupctl does not know.
        DataError: the runtime gives different features; no file is written then. There are no images to calibrate with.
        StoppedError: somebody asked to stop; no file is written.
    """
    with draft(job, progress or Progress(quiet=True)) as made:
        return made.finish()


@contextmanager
def draft(job: ExportJob, progress: Progress) -> Iterator[Draft]:
    """The file of an export next to its place, to be tested before it is moved there.

    Raises:
        UsageError, FormatError, DataError, StoppedError: as `export`.
    """
    check_job(job)
    with stop_at_once(job.out) as request:
        check_writable(job.out)
        calibration = None if job.calibrate is None else choose_calibration(job.calibrate, job.prove)
        with (
            disk_errors_named(job.out),
            tempfile.TemporaryDirectory(dir=job.out.parent, prefix=f".{job.out.name}.", suffix=".part") as name,
        ):
            made = _build(job, Path(name), calibration, progress)
            if request.wanted:  # a library took that for an error of its own, and went on
                raise request.nothing_written(job.out)
            yield made


def _build(job: ExportJob, folder: Path, calibration: Calibration | None, progress: Progress) -> Draft:
    source = open_source(job, folder)
    model, story = change_precision(job, source, folder, calibration, progress)
    if job.format == "tensorrt":
        cast_first(model)
    kind = "openvino" if job.format == "openvino" else "onnx"
    record = source.record | {"kind": kind, "precision": job.precision} | story
    path = folder / job.out.name
    if job.format == "openvino":
        graph = folder / "graph.onnx"
        write_model(graph, model, {}, description="")
        model = read_openvino(graph)
    _write(job, path, model, record, source.description)
    difference, shapes, runtime = _try(job, path, source)
    images = sum(map(len, source.wanted))
    record["check"] = describe_check(job, runtime, images=images, difference=difference)
    _write(job, path, model, record, source.description)
    return Draft(job, path, model, source, record, difference, shapes, progress)


def _try(job: ExportJob, path: Path, source: Source) -> tuple[float, tuple[str, ...], Runtime]:
    """How far the features of a written file are from the wanted ones, the shapes it takes, and what ran it.

    Raises:
        DataError: too far.
    """
    session = open_session(path)
    difference = largest_difference(
        [_units(session.run(batch)[0]) for batch in source.batches], [_units(wanted) for wanted in source.wanted]
    )
    if not difference <= TOLERANCES[job.precision]:  # also true for NaN
        raise DataError(
            f"{job.out}: not written; in {job.precision} {session.runtime}'s features move by {difference:.1e}, more "
            f"than {TOLERANCES[job.precision]:.0e}",
            hint="--precision float32, or another --format",
        )
    size = source.height, source.width
    shapes = tuple(describe_shapes(session, path, size)) if job.format == "tensorrt" else ()
    return difference, shapes, session.runtime


def _write(job: ExportJob, path: Path, model: Any, record: dict[str, Any], description: str) -> None:
    if job.format == "openvino":
        write_openvino(path, model, record, in_halves=job.precision == "float16")
    else:
        write_model(path, model, record, description=description)
        check_model(path)


def _units(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    rows = features.reshape(len(features), -1).astype(np.float32, copy=False)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)  # type: ignore[no-any-return]
