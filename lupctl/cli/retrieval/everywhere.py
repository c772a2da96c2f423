"""`lupctl eval --all`: runs on every test set of the workspace."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table
from lupctl.cli.retrieval.compare import FOLDER, join_names
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from lupctl.core.ranking.reports.model.matrix import CrossCell, CrossDomain
    from lupctl.core.stages.evaluate import EvaluationJob
    from lupctl.core.stages.matrix import CrossRow


def score_everywhere(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Scores runs on every test set of the workspace as asked, or says what would be scored.

    Raises:
        UsageError: the matrix exists.
        DataError: there is no run or no test set, or one cannot be scored.
    """
    from lupctl.core.stages.matrix import write_matrix
    from lupctl.core.system.disk.atomic import check_absent

    networks = find_networks(space, names, progress)
    tests = find_test_sets(space, rules, progress)
    out = matrix_path(space, list(networks), rules.out)
    if dry_run:
        plan = {"runs": list(networks), "datasets": list(tests), "report": str(out)}
        print_plan("lupctl.eval-all-plan/1", "would evaluate", plan, json=json)
        return
    check_absent(out, force=rules.force)
    matrix = write_matrix(score_all(networks, tests, rules, devices, progress), out, force=rules.force)
    show_matrix(matrix, out, json=json)


def find_networks(space: Workspace, names: list[str], progress: Progress) -> dict[str, Path]:
    """The checkpoints of runs by their names; without names that of the newest fine-tuning run.

    Raises:
        DataError: there is none.
        UsageError: one comes twice.
    """
    if not names:
        runs = space.finished_runs("finetune")
        if not runs:
            raise DataError(f"no finished fine-tuning run in {space.runs}", hint="make one: lupctl finetune market1501")
        progress.say(f"run: {runs[0]} (the newest fine-tuning run)")
        return {runs[0].name: runs[0] / CHECKPOINT_NAME}
    if len(set(names)) < len(names):
        raise UsageError(f"--all: a run comes twice in {' '.join(names)}", hint="name every run once")
    return {name: find_checkpoint(space, name) for name in names}


def find_test_sets(space: Workspace, rules: "EvaluationJob", progress: Progress) -> dict[str, Path]:
    """The packs of the workspace that can be scored, by dataset; says which have queries and cannot.

    Raises:
        DataError: there is none.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.ranking.retrieval.answerable import check_answerable

    found: dict[str, Path] = {}
    for path in space.pack_paths():
        pack = open_pack(path)
        if not (pack.samples.role == ROLE_CODES["query"]).any():
            continue
        try:
            check_answerable(pack.samples, same_camera=rules.same_camera)
        except DataError as error:
            progress.warn(f"{path}: left out: {error.message}")
            continue
        found[pack.dataset] = path
    if not found:
        raise DataError(
            f"{space.packs}: no pack with queries that can be answered", hint="put a benchmark under raw/, then: "
            "lupctl data pack"
        )  # fmt: skip
    return found


def features_place(checkpoint: Path, pack: Path) -> Path:
    """Where a network's features of a pack lie: in its run's folder, or beside a checkpoint that has none."""
    own = "" if checkpoint.name == CHECKPOINT_NAME else f"{checkpoint.stem}."
    return checkpoint.parent / f"{own}{pack.resolve().stem}.features.h5"


def matrix_path(space: Workspace, names: list[str], out: Path | None) -> Path:
    """Where a matrix goes: `out`, a file or a folder that exists; else the workspace's folder of comparisons."""
    joined = f"all--{join_names(names)}"
    if out is None:
        return space.home / FOLDER / f"{joined}.json"
    return out / f"{joined}.json" if out.is_dir() else out


def score_all(
    networks: dict[str, Path],
    tests: dict[str, Path],
    rules: "EvaluationJob",
    devices: "Sequence[torch.device]",
    progress: Progress,
) -> "list[CrossRow]":
    """Scores every network on every test set; dumps the features that are missing or of something older.

    Args:
        networks: checkpoints by the names of their runs.
        tests: packs by dataset.
        rules: how they are scored; its features are replaced.
        devices: where distances are computed, and features on the first.
        progress: lines and bars.
    """
    from dataclasses import replace

    from lupctl.core.stages.dump import DumpJob, dump
    from lupctl.core.stages.evaluate import compute_report, current_report
    from lupctl.core.stages.matrix import CrossRow, are_of
    from lupctl.core.system.disk.atomic import file_fingerprint

    rows = []
    for name, checkpoint in networks.items():
        fingerprint, reports = file_fingerprint(checkpoint), {}
        for dataset, pack in tests.items():
            features = features_place(checkpoint, pack)
            if not are_of(features, fingerprint=fingerprint, pack=pack):
                progress.say(f"features: {features} from {pack}")
                command = ("lupctl", *sys.argv[1:])
                dump(DumpJob(checkpoint, pack, features, force=True, command=command), devices[0], progress)
            job = replace(rules, features=(features,), out=None)
            report = current_report(job) or compute_report(job, devices, progress)
            # A report that lies there may say more than was asked for, and only for one of the test sets.
            reports[dataset] = report if rules.rerank else report.model_copy(update={"rerank": None})
        rows.append(CrossRow(name, checkpoint, reports))
    return rows


def show_matrix(matrix: "CrossDomain", path: Path, *, json: bool) -> None:
    """Prints a matrix on stdout."""
    from lupctl.core.ranking.reports.model.matrix import cross_text

    if json:
        print(cross_text(matrix), end="")
        return
    rows: list[list[str]] = []
    for run in matrix.runs:
        rows.append([run.name, *map(_describe, run.cells)])
        if all(cell.rerank for cell in run.cells):
            again = [(cell.rerank.scores.map, cell.rerank.scores.cmc[1]) for cell in run.cells if cell.rerank]
            rows.append([f"{run.name}, re-ranked", *(f"{100 * mean:.2f} / {100 * first:.2f}" for mean, first in again)])
    print_table("mAP / rank-1, %", ["run", *(one.name for one in matrix.datasets)], rows)
    if any(cell.trained_on for run in matrix.runs for cell in run.cells):
        print("* trained on this dataset's training images")
    for written in (path, path.with_suffix(".html")):
        print(f"report: {written}")


def _describe(cell: "CrossCell") -> str:
    mark = " *" if cell.trained_on else ""
    return f"{100 * cell.scores.map:.2f} / {100 * cell.scores.cmc[1]:.2f}{mark}"
