"""`lupctl eval --compare`: several runs side by side."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.core.errors import UsageError
from lupctl.core.resolve.features import current_features, resolve_features
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.comparison import Comparison
    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.evaluate import EvaluationJob

FOLDER = "comparisons"
# File systems take 255 bytes; what is put before and behind the names comes on top.
MAX_NAME, MAX_START = 200, 50
COLUMNS = ["%", "mAP", "95 % interval", "mAP official", "mINP", "rank-1", "re-ranked mAP", "re-ranked rank-1"]


def compare_runs(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Compares runs as asked, or says what would be compared.

    Raises:
        UsageError: fewer than two runs, or the comparison exists.
        DataError: a run cannot be scored, or was scored on other queries or by another rule.
    """
    from lupctl.core.stages.compare import compare

    out = comparison_path(space, names, rules.out)
    if dry_run:
        print_plan("lupctl.compare-plan/1", "would compare", {"runs": names, "report": str(out)}, json=json)
        return
    comparison = compare(gather_reports(space, names, rules, devices, progress), out, force=rules.force)
    show_comparison(comparison, out, json=json)


def gather_reports(
    space: Workspace, names: list[str], rules: "EvaluationJob", devices: "Sequence[torch.device]", progress: Progress
) -> "dict[str, Report]":
    """A report of each run: the one beside its features where it tells the same, else a new one that is not written.

    Args:
        space: where runs lie.
        names: runs or features files, at least two.
        rules: how they are scored; its features are replaced.
        devices: where distances are computed.
        progress: lines and bars.

    Raises:
        UsageError: fewer than two names, or one twice.
        DataError: nothing of a name, or it cannot be scored.
    """
    from dataclasses import replace

    from lupctl.core.stages.evaluate import compute_report, current_report

    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(
            f"--compare takes two or more different runs, not {' '.join(names) or 'none'}",
            hint="lupctl eval --compare RUN RUN",
        )
    reports = {}
    named: dict[Path, str] = {}
    for name in names:
        features = current_features(space, resolve_features(space, name, progress=progress), devices[0], progress)
        twin = named.setdefault(features.resolve(), name)
        if twin != name:
            raise UsageError(f"--compare: {twin} and {name} are the same run", hint="name it once")
        job = replace(rules, features=(features,), out=None)
        report = current_report(job)
        if report is None:
            progress.say(f"{name}: scored again, no report of these features by this rule lies beside them")
            report = compute_report(job, devices, progress)
        reports[name] = report
    return reports


def comparison_path(space: Workspace, names: list[str], out: Path | None) -> Path:
    """Where a comparison goes: `out`, a file or a folder that exists; else the workspace's folder of comparisons."""
    name = f"{join_names(names)}.json"
    if out is None:
        return space.home / FOLDER / name
    return out / name if out.is_dir() else out


def join_names(names: list[str]) -> str:
    """Names of runs as one name of a file; of many, the first one, how many more, and a digest of all."""
    parts = [Path(one).name.removesuffix(".features.h5") for one in names]
    joined = "--".join(parts)
    if len(joined.encode()) <= MAX_NAME:
        return joined
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
    return f"{parts[0][:MAX_START]}--and-{len(parts) - 1}-more-{digest}"


def show_comparison(comparison: "Comparison", path: Path, *, json: bool) -> None:
    """Prints a comparison on stdout."""
    from lupctl.core.ranking.reports.model.comparison import MEASURE_NAMES, comparison_text

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
    print(f"paired bootstrap over the queries, {draws}; training is not drawn again")
    for written in (path, path.with_suffix(".html")):
        print(f"report: {written}")


def _points(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"


def _spread(mean: float, deviation: float) -> str:
    return f"{100 * mean:.2f} ({100 * deviation:.2f})"
