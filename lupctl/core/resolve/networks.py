"""Which networks and which test sets `eval --all` takes, and where its matrix goes."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.comparisons import FOLDER, join_names
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.evaluate import EvaluationJob


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
