"""`lupctl eval --sweep`: one network at several values of a setting."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.cli.retrieval.tables import describe_warning
from lupctl.core.choices import CameraUse
from lupctl.core.flows.sweep.order import SweepOrder, order_sweep
from lupctl.core.flows.sweep.run import run_sweep
from lupctl.core.resolve.retrieval.sweeps import name_values
from lupctl.core.resolve.training.placement import find_machines, place_dump
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.ranking.reports.model.sweep import Sweep, SweepDifference, SweepPoint
    from lupctl.core.stages.evaluate import EvaluationJob

COLUMNS = ["%", "mAP", "points", "95 % interval", "more than luck", "mAP official", "mINP", "rank-1"]


def sweep_values(
    space: Workspace,
    names: list[str],
    texts: tuple[str, Sequence[str]],
    rules: "EvaluationJob",
    devices: tuple[str | None, int | None, int | None],
    progress: Progress,
    *,
    cameras: CameraUse | None,
    dry_run: bool,
    json: bool,
) -> None:
    """Scores a network at several values, or prints what would be scored.

    Args:
        space, names, texts, rules, cameras: as `order_sweep` takes them.
        devices: what follows `--device`, `--gpus` and `--processes`.
        progress: lines and bars.
        dry_run, json: as for every command.

    Raises:
        UsageError, DataError: as `order_sweep` and `run_sweep`.
    """
    from lupctl.core.stages.dump.job import fit_processes
    from lupctl.core.system.jobs.device import pick_devices

    machines = find_machines(None, None, None)
    progress = Progress(quiet=progress.quiet or not machines.leads)
    where = place_dump(*devices, machines, planned=dry_run)
    order = order_sweep(space, names, texts, rules, where.device, progress, cameras=cameras)
    if dry_run:
        if machines.leads:
            _show_plan(order, json=json)
        return
    if where.placement is not None and machines.outer is None and order.missing:
        where = replace(where, placement=fit_processes(order.missing[0], where.placement, is_asked=where.is_asked))
    scoring = pick_devices(devices[0], devices[1])
    sweep = run_sweep(space, order, where, scoring, progress, leads=machines.leads)
    if sweep is not None:
        show_sweep(sweep, order.rules.report, page=order.rules.page, json=json)


def _show_plan(order: SweepOrder, *, json: bool) -> None:
    plan: dict[str, object] = {
        "checkpoint": str(order.checkpoint),
        "data": str(order.pack),
        "key": order.axis.key,
        "values": name_values(order.axis),
        "set": " ".join(order.base.given()) or None,
        "features_there": len(order.dumps) - len(order.missing),
        "features_missing": len(order.missing),
        "missing_bytes": 4 * order.plan.dimension * _count_images(order),
        "queries": order.plan.counts.queries,
        "gallery": order.plan.counts.gallery,
        "report": str(order.rules.report),
    }
    print_plan("lupctl.sweep-plan/1", "would sweep", plan, json=json)


def _count_images(order: SweepOrder) -> int:
    """Images of all features that have to be made."""
    from lupctl.core.stages.dump.job import count_images

    return count_images(order.dumps[0]) * len(order.missing)


def show_sweep(sweep: "Sweep", path: Path, *, page: bool, json: bool) -> None:
    """Prints a sweep on stdout."""
    from lupctl.core.formats.weights.settings import show_value
    from lupctl.core.ranking.reports.model.sweep import KEY_NAMES, sweep_text

    if json:
        print(sweep_text(sweep), end="")
        return
    rows = [
        _row(point, again, sweep) for again in ([False, True] if sweep.rerank else [False]) for point in sweep.points
    ]
    base = "".join(f", {name} {show_value(value)}" for name, value in sorted(sweep.base.items()))
    print_table(f"{sweep.dataset}: {KEY_NAMES[sweep.key]}{base}", COLUMNS, rows)
    best, own = sweep.best, sweep.own
    print(
        f"best: {show_value(best)}{', the own value' if best == own else ''}, of {len(sweep.points)} values; ", end=""
    )
    print("chosen on the test queries that it is scored on, so that its lead is partly luck")
    if sweep.rerank is not None and sweep.best_reranked is not None:
        rule = sweep.rerank
        print(f"best after re-ranking: {show_value(sweep.best_reranked)}, chosen in the same way; ", end="")
        print(f"k1={rule.k1} k2={rule.k2} lambda={rule.weight:g} base={rule.base}")
    print(f"valid queries {sweep.queries_valid:,} / {sweep.queries:,}; protocol: {sweep.protocol.name}")
    print(f"points: mAP from that of the own value, {show_value(own)}; paired bootstrap over the queries, ", end="")
    print(f"{sweep.draws:,} draws, seed {sweep.seed}")
    for warning in sweep.warnings:
        print(describe_warning(warning))
    for written in (path, path.with_suffix(".html")) if page else (path,):
        print(f"report: {written}")


def _row(point: "SweepPoint", reranked: bool, sweep: "Sweep") -> tuple[object, ...]:
    from lupctl.core.formats.weights.settings import show_value

    scores = point.reranked if reranked else point.scores
    assert scores is not None
    best = sweep.best_reranked if reranked else sweep.best
    marks = [*(["own"] if point.is_own else []), *(["best"] if point.value == best else [])]
    name = show_value(point.value) + (", re-ranked" if reranked else "") + (f" ({', '.join(marks)})" if marks else "")
    shares = [f"{100 * share:.2f}" for share in (scores.map_official, scores.minp, scores.cmc[1])]
    return (name, f"{100 * scores.map:.2f}", *_gap(point.difference("map", reranked=reranked)), *shares)


def _gap(found: "SweepDifference | None") -> tuple[object, object, object]:
    if found is None:
        return None, None, None
    lower, upper = found.ci95
    return f"{100 * found.value:+.2f}", f"{100 * lower:.2f} to {100 * upper:.2f}", found.exceeds
