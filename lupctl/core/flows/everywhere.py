"""Every network scored on every test set."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.resolve.networks import features_path
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.matrix import ScoreMatrix
    from lupctl.core.stages.evaluate import EvaluationJob
    from lupctl.core.stages.matrix import MatrixRow


def score_everywhere(
    networks: dict[str, Path],
    tests: dict[str, Path],
    out: Path,
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "ScoreMatrix":
    """Scores every network on every test set; writes the matrix to `out` and as a page next to it.

    Args:
        networks, tests, rules, devices, progress: as `score_all` takes them.
        out: the JSON file; `rules.force` overwrites it.

    Raises:
        UsageError: the matrix exists.
        DataError: a test set cannot be scored.
    """
    from lupctl.core.stages.matrix import write_matrix
    from lupctl.core.system.disk.atomic import check_absent

    check_absent(out, force=rules.force)
    return write_matrix(score_all(networks, tests, rules, devices, progress), out, force=rules.force)


def score_all(
    networks: dict[str, Path],
    tests: dict[str, Path],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "list[MatrixRow]":
    """Scores every network on every test set; dumps the features that are missing or out of date.

    Args:
        networks: checkpoints by the names of their runs.
        tests: packs by dataset.
        rules: how they are scored; its features are replaced.
        devices: where distances are computed, and features on the first.
        progress: lines and bars.
    """
    from dataclasses import replace

    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.dump.run import dump
    from lupctl.core.stages.evaluate import compute_report, current_report
    from lupctl.core.stages.matrix import MatrixRow, is_made_from
    from lupctl.core.system.disk.atomic import file_fingerprint

    rows = []
    for name, checkpoint in networks.items():
        fingerprint, reports = file_fingerprint(checkpoint), {}
        for dataset, pack in tests.items():
            features = features_path(checkpoint, pack)
            if not is_made_from(features, fingerprint=fingerprint, pack=pack):
                progress.say(f"features: {features} from {pack}")
                job = DumpJob(checkpoint, pack, features, force=True, command=rules.command)
                dump(job, devices[0], progress)
            scoring = replace(rules, features=(features,), out=None)
            report = current_report(scoring) or compute_report(scoring, devices, progress)
            # An existing report may say more than was requested, and only for one of the test sets.
            reports[dataset] = report if rules.rerank else report.model_copy(update={"rerank": None})
        rows.append(MatrixRow(name, checkpoint, reports))
    return rows
