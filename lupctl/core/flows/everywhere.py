"""Every network scored on every test set."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.resolve.networks import FOLDER, features_path
from lupctl.core.resolve.retrieval.lineage import lineage_of
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.matrix import ScoreMatrix
    from lupctl.core.stages.evaluate import EvaluationJob
    from lupctl.core.stages.matrix import MatrixRow


def score_everywhere(
    space: Workspace,
    networks: dict[str, Path],
    tests: dict[str, Path],
    out: Path,
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "ScoreMatrix":
    """Scores every network on every test set; writes the matrix to `out` and as a page next to it.

    Args:
        space, networks, tests, rules, devices, progress: as `score_all` takes them.
        out: the JSON file; `rules.force` overwrites it.

    Raises:
        UsageError: the matrix exists.
        DataError: a test set cannot be scored.
    """
    from dataclasses import replace

    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint
    from lupctl.core.stages.matrix import find_speeds, read_benches, write_matrix
    from lupctl.core.system.disk.atomic import check_absent

    check_absent(out, force=rules.force)
    rows = score_all(space, networks, tests, rules, devices, progress)
    benches = read_benches(space.home / FOLDER, progress)
    rows = [
        replace(row, speeds=find_speeds(benches, recorded_fingerprint(row.checkpoint), row.checkpoint)) for row in rows
    ]
    return write_matrix(rows, out, force=rules.force)


def score_all(
    space: Workspace,
    networks: dict[str, Path],
    tests: dict[str, Path],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "list[MatrixRow]":
    """Scores every network on every test set; dumps the features that are missing or out of date.

    Args:
        space: where the packs are that the networks were trained on.
        networks: checkpoints by the names of their runs.
        tests: packs by dataset.
        rules: how they are scored; its features are replaced.
        devices: where distances are computed, and features on the first.
        progress: lines and bars.
    """
    from dataclasses import replace

    import torch

    from lupctl.core.ranking.reports.build.warnings import is_trained_on, warned
    from lupctl.core.ranking.retrieval.lineage import ScoredPack
    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.dump.run import dump
    from lupctl.core.stages.evaluate import compute_report, current_report
    from lupctl.core.stages.matrix import MatrixRow, is_made_from

    rows = []
    for name, checkpoint in networks.items():
        fingerprint, reports = recorded_fingerprint(checkpoint), {}
        lineage, trained_on = lineage_of(space, checkpoint), set[str]()
        for dataset, pack in tests.items():
            features = features_path(checkpoint, pack)
            if not is_made_from(features, fingerprint=fingerprint, pack=pack):
                progress.say(f"features: {features} from {pack}")
                job = DumpJob(checkpoint, pack, features, force=True, command=rules.command)
                dump(job, devices[0] if job.runtime is None else torch.device("cpu"), progress)
            tested = ScoredPack(dataset, pack)
            if is_trained_on(tested, lineage):
                trained_on.add(dataset)
            scoring = replace(rules, features=(features,), out=None, tested=(tested,), lineage=lineage)
            found = current_report(scoring)
            if found is not None:
                # An existing report may say more than was requested, and only for one of the test sets.
                kept = found if rules.rerank else found.model_copy(update={"rerank": None})
                reports[dataset] = warned(kept, scoring.tested, lineage)
            else:
                reports[dataset] = compute_report(scoring, devices, progress)
        rows.append(MatrixRow(name, checkpoint, reports, frozenset(trained_on)))
    return rows
