"""The runs and features files that the arguments of `eval` and `search` stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lupctl.core.choices import Dataset, nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, newest_finetuning
from lupctl.core.resolve.data.images import own_folder
from lupctl.core.resolve.data.packs import pick_images
from lupctl.core.resolve.hints import hint_for_data, hint_for_run, hint_to_dump, list_runs, same_path
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, RECIPE_NAME, RUN_NAME, Workspace, read_run

FEATURES_PATTERN = "*.features.h5"
CHECKPOINT_SUFFIX = ".safetensors"
# The commands that read features.
Reader = Literal["eval", "search"]


@dataclass(frozen=True)
class Target:
    """What an argument of `eval` stands for.

    Args:
        run: the run's folder, if a run was meant.
        features: the features file; None for a run that has none yet.
    """

    run: Path | None
    features: Path | None


def resolve_features(
    workspace: Workspace, target: str | None, *, progress: Progress, command: Reader = "eval"
) -> Target:
    """The features file that a command means; reports the run when none was named.

    Args:
        workspace: where runs are.
        target: a features file, a run's folder, a run's name, or None for the newest fine-tuning run.
        progress: reports the choice.
        command: the one that was typed, for the hints.

    Raises:
        DataError: nothing of that name, something else of that name, or no finished fine-tuning run.
        UsageError: the run holds features of several datasets.
    """
    if target is None:
        return _target_of_run(newest_finetuning(workspace, progress), command)
    for path in (Path(target), workspace.runs / target):
        if path.is_file():
            _refuse_other_files(workspace, path, command)
            return Target(run=None, features=path)
        if _is_run(path):
            return _target_of_run(path, command)
    runs = list_runs(workspace)
    if runs and any(same_path(Path(target), folder) for folder in (workspace.home, workspace.runs)):
        raise DataError(
            f"{target}: holds {count_things(len(runs), 'run')}; one was expected", hint=f"did you mean {runs[0].name}?"
        )
    if Path(target).is_dir():
        what = "a pack" if any(Path(target).glob("*.h5")) else "a folder"
        name = Path(target).name
        data = name if same_path(Path(target), workspace.raw / name) else target
        raise DataError(
            f"{target}: {what}; a run or a features file was expected", hint=hint_for_data(workspace, data, command)
        )
    if target in get_args(Dataset) or workspace.pack_path(target).exists():
        raise DataError(
            f"{target}: a dataset; a run or a features file was expected",
            hint=hint_for_data(workspace, target, command),
        )
    if Path(target).exists():
        from lupctl.core.system.disk.reading import say_missing

        raise DataError(
            f"{target}: {say_missing(Path(target))}; a run or a features file was expected", hint=f"ls -l {target}"
        )
    raise DataError(
        f"{target}: neither a file, nor a folder, nor a run in {workspace.runs}",
        hint=_hint_for_missing(workspace, target, command),
    )


def _is_run(path: Path) -> bool:
    """Whether a folder is a run, finished or not, or has features."""
    return path.is_dir() and (
        any((path / name).is_file() for name in (CHECKPOINT_NAME, RUN_NAME, RECIPE_NAME))
        or any(path.glob(FEATURES_PATTERN))
    )


def _refuse_other_files(workspace: Workspace, path: Path, command: Reader) -> None:
    """Refuses packs and the other files of a run, which people name where features are expected."""
    from lupctl.core.formats.record import read_kind

    run = path.parent
    if (run / RUN_NAME).is_file() and not path.match(FEATURES_PATTERN) and read_kind(path) is None:
        raise DataError(f"{path}: a file of a run, but not its features", hint=f"did you mean {run}?")
    if path.suffix == CHECKPOINT_SUFFIX:
        raise DataError(
            f"{path}: a checkpoint; a run or a features file was expected", hint=hint_to_dump(workspace, path)
        )
    if path.suffix in RUN_ALONE:
        raise DataError(
            f"{path}: {RUN_ALONE[path.suffix]} network; a run or a features file was expected",
            hint=hint_to_dump(workspace, path),
        )
    if read_kind(path) == "pack":
        raise DataError(
            f"{path}: a pack; a run or a features file was expected",
            hint=hint_for_data(workspace, str(path), command),
        )


def _hint_for_missing(workspace: Workspace, target: str, command: Reader) -> str:
    runs = [path.name for path in workspace.finished_runs("finetune")]
    guess = nearest_name(target, runs)
    if guess is None and runs and command == "eval":
        return f"lupctl eval {runs[0]}, the newest run here"
    return f"did you mean {guess or runs[0]}?" if runs else hint_for_run(workspace)


def find_images_of_features(space: Workspace, named: str | None, features: Path, progress: Progress) -> Path | None:
    """The pack or folder with the images of some features: as named, else the workspace's pack of their dataset.

    Raises:
        DataError: the named one does not exist.
    """
    if named is not None:
        try:
            return pick_images(space, named, progress)
        except DataError as error:
            raise DataError(error.message, hint="leave --images out") from error
    from lupctl.core.formats.features.foreign import read_any_head

    dataset = str(read_any_head(features).record.get("dataset", ""))
    run = own_folder(features)
    facts = read_run(run) if (run / RUN_NAME).is_file() else {}
    for path in (Path(str(facts.get("pack", ""))), space.pack_path(dataset) if dataset else space.packs / "none"):
        if path.name and path.exists():
            return path
    return None


def _target_of_run(run: Path, command: Reader) -> Target:
    found = sorted(run.glob(FEATURES_PATTERN))
    facts = read_run(run) if found and (run / RUN_NAME).is_file() else {}
    if pack := str(facts.get("pack", "")):
        # Features of the run's own dataset are meant, even if `dump` or `eval --all` has written others next to them.
        own = run / f"{Path(pack).stem}.features.h5"
        if own in found:
            found = [own]
        elif facts.get("command") == "finetune" and Path(pack).exists():
            found = []
    if len(found) > 1:
        raise UsageError(
            f"{run}: holds features of {len(found)} datasets ({', '.join(path.name for path in found)})",
            hint=f"name one: lupctl eval {found[0]}" if command == "eval" else f"did you mean {found[0]}?",
        )
    return Target(run=run, features=found[0] if found else None)
