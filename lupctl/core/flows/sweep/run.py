"""Computes a sweep; features and scores that are there are used again."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.flows.sweep.order import SweepOrder
from lupctl.core.resolve.retrieval.lineage import lineage_of
from lupctl.core.resolve.training.placement import DumpPlace
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.ranking.reports.model.sweep import Sweep
    from lupctl.core.ranking.retrieval.lineage import Lineage, ScoredPack
    from lupctl.core.stages.dump.job import DumpJob


def run_sweep(
    space: Workspace,
    order: SweepOrder,
    where: DumpPlace,
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    leads: bool = True,
) -> "Sweep | None":
    """Makes the features that are missing, scores every value, and writes the sweep with its page.

    Args:
        space: where the packs are that the network was trained on.
        order: what to do.
        where: the devices of the features.
        devices: those of the distances.
        progress: lines and bars.
        leads: whether this process scores for its job, where a launcher started several.

    Returns:
        the sweep; None in a process that does not lead.

    Raises:
        DataError: an image cannot be decoded, or nothing can be written.
        StoppedError: a request to stop; what is finished is kept.
    """
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.ranking.reports.build.sweep import Measured
    from lupctl.core.ranking.retrieval.lineage import ScoredPack
    from lupctl.core.stages.sweep import write_sweep

    _make_features(order, where, progress)
    if not leads:
        return None
    key, lineage = order.axis.key, lineage_of(space, order.checkpoint)
    tested = ScoredPack(open_pack(order.pack).dataset, order.pack)
    measured = []
    for value, job in zip(order.axis.values, order.dumps, strict=True):
        report = _score(order, job, tested, lineage, devices, progress)
        settings, shown = order.base | value, value.to_json()[key]
        measured.append(Measured(shown, settings.to_json(), job.out, report, is_own=value == order.own))
    out = order.rules.report
    return write_sweep(
        key, measured, out, network=str(order.checkpoint), base=order.base.to_json(), page=order.rules.page
    )


def _make_features(order: SweepOrder, where: DumpPlace, progress: Progress) -> None:
    """Computes the features that are missing, by one process or spread; those that are finished stay."""
    from lupctl.core.stages.dump.run import dump, spread_dumps

    jobs, there = order.missing, len(order.dumps) - len(order.missing)
    if there:
        progress.say(f"features: those of {there} of {len(order.dumps)} values are there already")
    if not jobs:
        return
    # Each value reads its images again: of 384 images through the smallest Swin, decoding took 1 % of the time, the
    # resize 4 %, and the network the rest.
    if where.placement is None:
        for job in jobs:
            progress.say(f"features: {job.out} from {job.data}")
            dump(job, where.device, progress)
        return
    progress.say(where.placement.line)
    spread_dumps(jobs, where.placement, progress)


def _score(
    order: SweepOrder,
    job: "DumpJob",
    tested: "ScoredPack",
    lineage: "Lineage",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "Report":
    """The report of one value: the one that is kept beside the features, if it has the same rules, else a new one."""
    from dataclasses import replace

    from lupctl.core.ranking.reports.build.warnings import warned
    from lupctl.core.stages.evaluate import current_report, evaluate

    scoring = replace(
        order.rules,
        features=(job.out,),
        out=_report_path(order, job),
        page=False,
        tested=(tested,),
        lineage=lineage,
        force=True,
    )
    found = current_report(scoring)
    if found is None:
        return evaluate(scoring, devices, progress)
    # One that is kept may say more than was asked for, and only for some of the values.
    kept = found if order.rules.rerank else found.model_copy(update={"rerank": None})
    return warned(kept, scoring.tested, lineage)


def _report_path(order: SweepOrder, job: "DumpJob") -> Path:
    """Where the report of one value is kept: with the features of the others, not as the run's own report."""
    folder = next((one.out.parent for one in order.dumps if one.settings.given()), order.rules.report.parent)
    return folder / f"{job.out.name.removesuffix('.features.h5')}.report.json"
