"""Computes an explanation: dumps and scores the network again with each change, in a folder that is gone afterwards."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lupctl.core.errors import StoppedError
from lupctl.core.flows.explaining.changes import Change, write_command
from lupctl.core.flows.explaining.order import ExplainOrder
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.explanation import Explanation
    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.evaluate import EvaluationJob


def run_explanation(
    order: ExplainOrder, out: Path, devices: "Sequence[torch.device]", progress: Progress
) -> "Explanation":
    """Tries every change and writes the explanation.

    Args:
        order: what to do.
        out: the JSON file; `order.rules.force` overwrites it.
        devices: where distances are computed, and features on the first.
        progress: lines and bars.

    Raises:
        UsageError: the explanation exists.
        DataError: an image cannot be decoded, or nothing can be written.
        StoppedError: a request to stop.
    """
    from lupctl.core.ranking.reports.build.explanation import Tried, build_explanation
    from lupctl.core.ranking.reports.model.explanation import write_explanation
    from lupctl.core.stages.evaluate import compute_report
    from lupctl.core.system.disk.atomic import check_absent, check_not_input, check_writable

    check_not_input(out, order.rules.features)
    check_absent(out, force=order.rules.force)
    check_writable(out)
    rules = replace(order.rules.settled(progress), out=None, page=False)
    own, tried = compute_report(rules, devices, progress), []
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
        for number, change in enumerate(order.changes, start=1):
            shown = f"{change.ours} to {change.tried}" if change.ours else change.tried
            progress.say(f"trial {number} of {len(order.changes)}: {change.cause}, {shown}")
            report = _try(order, change, rules, Path(folder), devices, progress)
            command = None
            if change.needs_dump:
                command = write_command(change.apply(order.own), f"{change.cause.replace(' ', '-')}.features.h5")
            tried.append(Tried(change.cause, change.ours, change.tried, change.is_published, report, command))
    found = build_explanation(
        own, tried, order.not_tried, network=order.own.checkpoint, features=order.rules.features[0]
    )
    write_explanation(out, found)
    return found


def _try(
    order: ExplainOrder,
    change: Change,
    rules: "EvaluationJob",
    folder: Path,
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "Report":
    """The report of the network with one change."""
    import torch

    from lupctl.core.stages.dump.run import dump
    from lupctl.core.stages.evaluate import compute_report

    features = rules.features[0]
    if change.needs_dump:
        features = folder / "trial.features.h5"
        job = replace(change.apply(order.own), out=features, force=True)
        # Runtimes compute on the CPU.
        try:
            dump(job, torch.device("cpu") if job.is_onnx else devices[0], progress)
        except StoppedError as error:  # its chunks are not kept, as everything of a trial
            raise type(error)("stopped on request; nothing was kept", hint="type the same command again") from error
    if change.is_euclidean:
        features = _lift(features, folder / "lifted.features.h5")
    try:
        return compute_report(replace(rules, features=(features,)), devices, progress)
    finally:
        for path in folder.iterdir():
            path.unlink()


def _lift(features: Path, out: Path) -> Path:
    """Features whose cosines rank as the Euclidean distances of others do."""
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.features.file import Features, read_features, write_features
    from lupctl.core.ranking.metrics.euclidean import lift_euclidean

    found = read_features(features)
    rows = lift_euclidean(found.features, found.samples.role == ROLE_CODES["query"])
    write_features(out, Features(rows, found.samples, found.record))
    return out
