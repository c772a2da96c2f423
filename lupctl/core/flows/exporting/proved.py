"""Export, and the proof of what it did to retrieval: both networks are dumped and scored before a file is written."""

from typing import TYPE_CHECKING

from lupctl.core.errors import StoppedError
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.export.job import ExportJob, ExportResult
    from lupctl.core.stages.export.proof import Proof
    from lupctl.core.stages.export.run import Draft


def export_network(
    job: "ExportJob", progress: Progress, *, max_drop: float | None = None
) -> "tuple[ExportResult, Proof | None]":
    """Writes a network, tested first where its job names a pack for that.

    Args:
        job: what to export.
        progress: lines and bars.
        max_drop: points of mAP, in percent, that it may lose; None for any.

    Raises:
        UsageError, FormatError, DataError: as `draft`; and the pack has no queries, gallery or right answers.
        GateError: the network lost more; no file is written.
        StoppedError: somebody asked to stop; no file is written.
    """
    from lupctl.core.stages.export.proof import check_drop, check_provable
    from lupctl.core.stages.export.run import draft

    if job.prove is not None:
        check_provable(job.prove)
    with draft(job, progress) as made:
        if job.prove is None:
            return made.finish(), None
        if job.format == "tensorrt":
            progress.say("proof: onnxruntime runs the ONNX file; TensorRT itself is not run")
        proof = _prove(made, job.prove, progress)
        for line in proof.lines():
            progress.say(line)
        check_drop(proof, max_drop, job)
        return made.finish(proof.to_json()), proof


def _prove(made: "Draft", pack: "Path", progress: Progress) -> "Proof":
    """The exported network and what it was made from on the same images."""
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.export.proof import compare

    job, folder = made.job, made.path.parent
    rule = None if made.source.given is None else made.source.given.rule
    before = DumpJob(
        job.checkpoint,
        pack,
        folder / "before.features.h5",
        cameras=rule,
        foreign=job.foreign,
        precision="float32",
        command=job.command,
    )
    is_asked = made.source.given is not None and made.source.given.row is None
    after = DumpJob(
        made.path, pack, folder / "after.features.h5", cameras=rule if is_asked else None, command=job.command
    )
    try:
        return compare(_score(before, progress), _score(after, progress))
    except StoppedError as error:  # features are not kept here, and cannot be continued
        message = f"{job.out}: not written, stopped on request"
        raise type(error)(message, hint="type the same command again") from error


def _score(job: "DumpJob", progress: Progress) -> "tuple[Path, Report]":
    """Features of a network, and their report."""
    import torch

    from lupctl.core.stages.dump.run import dump
    from lupctl.core.stages.evaluate import EvaluationJob, compute_report
    from lupctl.core.system.jobs.device import pick_device

    device = pick_device(None) if job.runtime is None else torch.device("cpu")
    dump(job, device, progress)
    rules = EvaluationJob((job.out,), page=False)
    return job.out, compute_report(rules, [device], progress)
