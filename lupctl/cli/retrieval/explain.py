"""`lupctl eval --explain`: one network scored again with each known cause of other scores changed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.cli.retrieval.tables import describe_warning
from lupctl.core.choices import CameraUse
from lupctl.core.flows.evaluation import take_features
from lupctl.core.flows.explaining.order import ExplainOrder, check_there, order_explanation
from lupctl.core.flows.explaining.run import run_explanation
from lupctl.core.resolve.retrieval.explaining import explanation_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.explanation import Explanation, Trial, TrialDifference
    from lupctl.core.stages.evaluate import EvaluationJob

COLUMNS = ["%", "mAP", "points", "95 % interval", "rank-1", "points", "95 % interval"]
LEFT_COLUMNS = ["mAP left", "rank-1 left"]


def explain_scores(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    asked: tuple[CameraUse | None, str | None],
    dry_run: bool,
    json: bool,
) -> None:
    """Tries each known cause, or prints what would be tried.

    Args:
        space, names, rules, devices, progress: as `take_features` takes them.
        asked: the rule for the images' cameras, and the published network that it is.
        dry_run, json: as for every command.

    Raises:
        UsageError: the explanation exists, or the network is not the published one.
        DataError: the network or its images are not here, or nothing can be written.
    """
    rules, out = replace(rules, page=False), rules.out
    if dry_run:
        check_there(space, names, rules)
    job = take_features(space, names, rules, devices[0], progress, images=None, cameras=asked[0], published=asked[1])
    order, path = order_explanation(space, job), explanation_path(job.features[0], out)
    if dry_run:
        _show_plan(order, path, json=json)
        return
    show_explanation(run_explanation(order, path, devices, progress), path, json=json)


def _show_plan(order: ExplainOrder, path: Path, *, json: bool) -> None:
    dumps = sum(change.needs_dump for change in order.changes)
    known_as = order.rules.known_as
    plan: dict[str, object] = {
        "features": str(order.rules.features[0]),
        "network": str(order.own.checkpoint),
        "data": str(order.own.data),
        "published": None if known_as is None else known_as.name,
        "trials": "; ".join(f"{change.cause}: {change.tried}" for change in order.changes),
        "not_tried": "; ".join(f"{one.cause}: {one.reason}" for one in order.not_tried) or None,
        "images_per_trial": order.images,
        "images": dumps * order.images,
        "report": str(path),
    }
    print_plan("lupctl.explain-plan/1", "would try", plan, json=json)


def show_explanation(found: "Explanation", path: Path, *, json: bool) -> None:
    """Prints an explanation on stdout."""
    from lupctl.core.ranking.reports.model.explanation import explanation_text
    from lupctl.core.ranking.reports.model.published import describe_published

    if json:
        print(explanation_text(found), end="")
        return
    has_target = found.map_gap is not None
    own = ("as dumped", f"{100 * found.scores.map:.2f}", None, None, f"{100 * found.scores.cmc[1]:.2f}", None, None)
    rows: list[tuple[object, ...]] = [(*own, *_left(found.map_gap, found.rank1_gap))]
    rows += [_row(trial) for trial in found.trials]
    if found.published is not None and has_target:
        shares = (f"{100 * found.published.map:.2f}", f"{100 * found.published.rank1:.2f}")
        name = f"published: {found.published.name}"
        rows.append((name, shares[0], None, None, shares[1], None, None, None, None))
    columns = [*COLUMNS, *(LEFT_COLUMNS if has_target else [])]
    print_table(f"{found.network} on {found.dataset}", columns, [row[: len(columns)] for row in rows])
    print("points: from the features as dumped; paired bootstrap over the queries, ", end="")
    print(f"{found.draws:,} draws, seed {found.seed}; valid queries {found.queries_valid:,} / {found.queries:,}")
    for line in [] if found.published is None else describe_published(found.published):
        print(line)
    for one in found.not_tried:
        print(f"not tried: {one.cause}: {one.reason}")
    for warning in found.warnings:
        print(describe_warning(warning))
    print(describe_verdict(found))
    print(f"report: {path}")


def describe_verdict(found: "Explanation") -> str:
    """What closes the gap, in one line, with the command that makes such features."""
    if found.published is None:
        return "no published score to compare with: say which published network it is with --published NAME"
    if found.verdict == "not compared":
        return "no cause is named: the published scores are of other images"
    if found.verdict == "no gap":
        return "no gap to close: the scores are the published ones, to their rounding"
    if found.verdict == "not explained":
        return "no cause closes the gap: no trial comes nearer to both published scores within its interval"
    (trial,) = (one for one in found.trials if one.cause == found.closed_by)
    way = "" if trial.is_published else ", which is not the published way as far as it is known"
    command = "; lupctl eval ranks by the cosine alone" if trial.command is None else f"; {trial.command}"
    shown = f"{trial.ours} to {trial.tried}" if trial.ours else trial.tried
    return f"closes the gap: {trial.cause}, {shown}{way}{command}"


def _row(trial: "Trial") -> tuple[object, ...]:
    name = f"{trial.cause}: {trial.tried}{' (published)' if trial.is_published else ''}"
    return (
        name,
        f"{100 * trial.scores.map:.2f}",
        *_gap(trial.map_difference),
        f"{100 * trial.scores.cmc[1]:.2f}",
        *_gap(trial.rank1_difference),
        *_left(trial.map_left, trial.rank1_left),
    )


def _gap(found: "TrialDifference | None") -> tuple[object, object]:
    if found is None:
        return None, None
    return f"{100 * found.value:+.2f}", f"{100 * found.ci95[0]:.2f} to {100 * found.ci95[1]:.2f}"


def _left(mean: float | None, rank1: float | None) -> tuple[object, object]:
    return None if mean is None else f"{100 * mean:+.2f}", None if rank1 is None else f"{100 * rank1:+.2f}"
