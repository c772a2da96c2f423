"""The runs and features files that the arguments of `eval` stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lupctl.core.choices import Dataset, nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import newest_finetuning
from lupctl.core.resolve.data.packs import pick_images
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import RUN_NAME, Workspace, read_run

FEATURES_PATTERN = "*.features.h5"


@dataclass(frozen=True)
class Target:
    """What an argument of `eval` stands for.

    Args:
        run: the run's folder, if a run was meant.
        features: the features file; None for a run that has none yet.
    """

    run: Path | None
    features: Path | None


def resolve_features(workspace: Workspace, target: str | None, *, progress: Progress) -> Target:
    """The features file that a command means; reports the run when none was named.

    Args:
        workspace: where runs are.
        target: a features file, a run's folder, a run's name, or None for the newest fine-tuning run.
        progress: reports the choice.

    Raises:
        DataError: nothing of that name, or no finished fine-tuning run.
        UsageError: the run holds features of several datasets.
    """
    if target is None:
        return _target_of_run(newest_finetuning(workspace, progress))
    for path in (Path(target), workspace.runs / target):
        if path.is_file():
            return Target(run=None, features=path)
        if path.is_dir():
            return _target_of_run(path)
    raise DataError(
        f"{target}: neither a file, nor a folder, nor a run in {workspace.runs}",
        hint=_hint_for_missing(workspace, target),
    )


def _hint_for_missing(workspace: Workspace, target: str) -> str:
    if target in get_args(Dataset) or (workspace.packs / f"{target}.h5").exists():
        return f"{target} is a dataset; eval scores the features of a run: lupctl eval RUN"
    runs = [path.name for path in workspace.finished_runs("finetune")]
    guess = nearest_name(target, runs)
    if guess is not None:
        return f"did you mean {guess}?"
    return "lupctl eval without a name takes the newest fine-tuning run" + (
        f"; runs here: {name_some(runs)}" if runs else ""
    )


def find_pictures(space: Workspace, named: str | None, features: Path, progress: Progress) -> Path | None:
    """The pack or folder with the images of some features: as named, else the workspace's pack of their dataset.

    Raises:
        DataError: the named one does not exist.
    """
    if named is not None:
        return pick_images(space, named, progress)
    from lupctl.core.formats.features.foreign import read_any_head

    dataset = str(read_any_head(features).record.get("dataset", ""))
    facts = read_run(features.parent) if (features.parent / RUN_NAME).is_file() else {}
    for path in (Path(str(facts.get("pack", ""))), space.pack_path(dataset) if dataset else space.packs / "none"):
        if path.name and path.exists():
            return path
    return None


def _target_of_run(run: Path) -> Target:
    found = sorted(run.glob(FEATURES_PATTERN))
    if len(found) > 1 and (run / RUN_NAME).is_file():
        # Features of the run's own dataset are meant, even if `eval --all` has written others next to them.
        own = run / f"{Path(str(read_run(run).get('pack', ''))).stem}.features.h5"
        found = [own] if own in found else found
    if len(found) > 1:
        raise UsageError(
            f"{run}: holds features of {len(found)} datasets ({', '.join(path.name for path in found)})",
            hint=f"name one: lupctl eval {found[0]}",
        )
    return Target(run=run, features=found[0] if found else None)
