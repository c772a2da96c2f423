"""Several runs side by side, scored again where there is no report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import UsageError
from lupctl.core.flows.fresh_features import current_features
from lupctl.core.resolve.retrieval.features import resolve_features
from lupctl.core.resolve.retrieval.lineage import find_lineage, find_tested
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.comparison import Comparison
    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.evaluate import EvaluationJob


def compare_runs(
    space: Workspace,
    names: list[str],
    out: Path,
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "Comparison":
    """Compares runs pairwise; writes the comparison to `out` and as a page next to it.

    Args:
        space, names, rules, devices, progress: as `gather_reports` takes them.
        out: the JSON file; `rules.force` overwrites it.

    Raises:
        UsageError: fewer than two runs, one twice, or the comparison exists.
        DataError: a run cannot be scored, or was scored on other queries or by another rule.
    """
    from lupctl.core.stages.compare import compare
    from lupctl.core.system.disk.atomic import check_absent, check_not_input

    check_not_input(out, map(Path, names))
    check_absent(out, force=rules.force)
    return compare(gather_reports(space, names, rules, devices, progress), out, force=rules.force)


def gather_reports(
    space: Workspace, names: list[str], rules: "EvaluationJob", devices: "Sequence[torch.device]", progress: Progress
) -> "dict[str, Report]":
    """A report of each run: the one next to its features if it has the same rules, else a new one that is not written.

    Args:
        space: where runs are.
        names: runs or features files, at least two.
        rules: how they are scored; its features are replaced.
        devices: where distances are computed.
        progress: lines and bars.

    Raises:
        UsageError: fewer than two names, or one twice.
        DataError: a name matches nothing, or it cannot be scored.
    """
    from dataclasses import replace

    from lupctl.core.ranking.reports.build.warnings import warned
    from lupctl.core.stages.evaluate import compute_report, current_report

    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(
            f"--compare takes two or more different runs, not {' '.join(names) or 'none'}",
            hint="lupctl eval --compare RUN RUN",
        )
    reports = {}
    named: dict[Path, str] = {}
    for name in names:
        target = resolve_features(space, name, progress=progress)
        features = current_features(space, target, devices[0], progress, command=rules.command)
        twin = named.setdefault(features.resolve(), name)
        if twin != name:
            raise UsageError(f"--compare: {twin} and {name} are the same run", hint=f"leave {name} out")
        tested, lineage = find_tested(space, (features,)), find_lineage(space, features)
        job = replace(rules, features=(features,), out=None, tested=tested, lineage=lineage)
        found = current_report(job)
        if found is None:
            progress.say(f"{name}: scored again, as there is no report of these features by this rule")
            reports[name] = compute_report(job, devices, progress)
        else:
            reports[name] = warned(found, tested, lineage)
    return reports
