"""`lupctl eval --compare`: several runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.cli.retrieval.tables import describe_warning
from lupctl.core.flows.comparison import compare_runs
from lupctl.core.resolve.networks import comparison_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.comparison import Comparison
    from lupctl.core.stages.evaluate import EvaluationJob

COLUMNS = ["%", "mAP", "95 % interval", "mAP official", "mINP", "rank-1", "re-ranked mAP", "re-ranked rank-1"]


def run_comparison(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Compares runs, or prints what would be compared.

    Raises:
        UsageError: fewer than two runs, or the comparison exists.
        DataError: a run cannot be scored, or was scored on other queries or by another rule.
    """
    out = comparison_path(space, names, rules.out)
    if dry_run:
        print_plan("lupctl.compare-plan/1", "would compare", {"runs": names, "report": str(out)}, json=json)
        return
    show_comparison(compare_runs(space, names, out, rules, devices, progress), out, json=json)


def show_comparison(comparison: "Comparison", path: Path, *, json: bool) -> None:
    """Prints a comparison on stdout."""
    from lupctl.core.ranking.reports.model.comparison import MEASURE_NAMES, comparison_text, comparison_warnings

    if json:
        print(comparison_text(comparison), end="")
        return
    tags, rows = comparison.tags, []
    for run in comparison.runs:
        scores, again = run.scores, run.reranked
        shares = [scores.map, scores.map_official, scores.minp, scores.cmc[1]]
        shares += [] if again is None else [again.map, again.cmc[1]]
        cells = [f"{100 * share:.2f}" for share in shares] + [None] * (6 - len(shares))
        rows.append((f"{tags[run.name]}: {run.name}", cells[0], _points(run.ci95.map), *cells[1:]))
    print_table(f"{comparison.dataset}, {comparison.queries_valid:,} valid queries", COLUMNS, rows)
    if comparison.seeds:
        print_table(
            "runs that differ in their seed: mean (standard deviation)",
            ["runs", "seeds", "mAP", "rank-1"],
            [
                (one.name, f"{len(one.runs)}", _spread(one.map_mean, one.map_sd), _spread(one.rank1_mean, one.rank1_sd))
                for one in comparison.seeds
            ],
        )
    differences = [
        (
            tags[one.run],
            tags[one.other],
            MEASURE_NAMES[one.measure] + (", re-ranked" if one.reranked else ""),
            f"{100 * one.value:+.2f}",
            _points(one.ci95),
            one.exceeds,
        )
        for one in comparison.differences
    ]
    titles = ["run", "against", "score", "points", "95 % interval", "more than luck"]
    print_table("differences", titles, differences)
    draws = f"{comparison.draws:,} draws, seed {comparison.seed}"
    print(f"paired bootstrap over the queries, {draws}; training is not resampled")
    for name, warning in comparison_warnings(comparison):
        print(describe_warning(warning, run=name))
    for written in (path, path.with_suffix(".html")):
        print(f"report: {written}")


def _points(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"


def _spread(mean: float, deviation: float) -> str:
    return f"{100 * mean:.2f} ({100 * deviation:.2f})"
