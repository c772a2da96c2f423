"""The checkpoints and starts that a short command means. Every choice made here is reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import nearest_name
from lupctl.core.errors import DataError
from lupctl.core.resolve.hints import hint_for_run, hint_to_finetune, hint_to_finish, list_runs
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, RECIPE_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.weights.header import CheckpointHeader

WEIGHTLESS = ("imagenet", "scratch")
# What a recipe, or a user, says for the newest run that was fine-tuned on another dataset.
FINETUNED = "finetuned"
TORCH_SUFFIXES = (".pth", ".pt", ".tar")
# Files of networks that run without PyTorch.
RUN_ALONE = {".onnx": "an ONNX", ".xml": "an OpenVINO"}
ENGINE_SUFFIX = ".engine"


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from.

    Args:
        name: imagenet, scratch, or the checkpoint as a user would call it.
        checkpoint: the file, where there is one.
        header: of that file.
    """

    name: str
    checkpoint: Path | None
    header: "CheckpointHeader | None"


def find_start(space: Workspace, wanted: str) -> Start:
    """The start named: imagenet, scratch, a run, or a checkpoint file.

    Raises:
        DataError: there is none of that name.
    """
    from lupctl.core.formats.weights.header import read_header

    if wanted in WEIGHTLESS:
        return Start(wanted, None, None)
    path = find_checkpoint(space, wanted, others=WEIGHTLESS)
    return Start(wanted, path, read_header(path))


def newest_start(
    space: Workspace,
    arch: str,
    misfit: Callable[[Start], str | None],
    progress: Progress,
    *,
    name: str,
    besides: Sequence[str] | None = None,
) -> Start:
    """The newest run of an architecture that a recipe can start from.

    Args:
        space: the workspace.
        arch: of the network to train.
        misfit: what of a start does not fit the recipe; None if it fits.
        progress: reports the choice, and which newer runs were passed over.
        name: of the architecture, as it is typed after `--arch`.
        besides: datasets; the run is one of fine-tuning on others. None for a run of pre-training.

    Raises:
        DataError: there is nothing to start from.
    """
    from lupctl.core.formats.weights.header import read_header

    kind = "pre-training" if besides is None else "fine-tuning"
    other = "" if besides is None else f" on another dataset than {name_some(besides)}"
    passed = 0
    for run in space.finished_runs("pretrain" if besides is None else "finetune"):
        header = read_header(run / CHECKPOINT_NAME)
        trained = {pack.dataset for pack in header.data}
        if header.network.trunk.arch != arch or (besides is not None and not trained.isdisjoint(besides)):
            continue
        start = Start(run.name, run / CHECKPOINT_NAME, header)
        reason = misfit(start)
        if reason is None:
            which = f"the newest {kind} run of {name} here{other}{' that fits' if passed else ''}"
            progress.say(f"start: {run} ({which})")
            return start
        progress.say(f"start: not {run} ({reason})")
        passed += 1
    fitting = f" that fits; {passed:,} of another kind" if passed else ""
    raise DataError(
        f"{space.runs}: no finished {kind} run of {name}{other} to start from{fitting}",
        hint=f"lupctl pretrain --arch {name}, or choose --from imagenet or --from scratch"
        if besides is None
        else hint_to_finetune(space, name, besides),
    )


def find_checkpoint(
    space: Workspace,
    name: str,
    *,
    others: Sequence[str] = (),
    fitting: Sequence[Path] | None = None,
    convert: str = "lupctl model convert",
) -> Path:
    """The checkpoint a user means: a file, a run's folder, or the name of a run or of downloaded weights.

    Args:
        space: the workspace.
        name: what the user typed.
        others: names that the user could also have meant, for the hint.
        fitting: the runs that the user could have meant; None for every finished one, and published networks.
        convert: what makes the wanted file of one of another program.

    Raises:
        DataError: there is none, or it is a PyTorch file.
    """
    for path in (Path(name), space.runs / name, space.models / name, published_path(space, name)):
        if path.is_file() and path.suffix in TORCH_SUFFIXES:
            raise DataError(f"{path}: a PyTorch file; a lupctl checkpoint was expected", hint=f"{convert} {path}")
        if path.is_file() and path.suffix == ".h5":
            raise DataError(
                f"{path}: a pack or features; a run or a checkpoint was expected",
                hint=_hint_for_pack(space, path, others, fitting),
            )
        if path.is_file() and path.suffix == ENGINE_SUFFIX:
            raise DataError(
                f"{path}: an engine of TensorRT, which lupctl does not run",
                hint=f"name what it was built from, such as {path.with_suffix('.onnx')}; lupctl model export makes it",
            )
        if path.is_file() and path.suffix in RUN_ALONE:
            raise DataError(
                f"{path}: {RUN_ALONE[path.suffix]} network, which lupctl dump and lupctl.load take; a run or a "
                "checkpoint was expected",
                hint=_hint_for_pack(space, path, others, fitting)
                if list_runs(space) or others
                else hint_for_run(space),
            )
        if path.is_file():
            return path
        if (path / CHECKPOINT_NAME).is_file():
            return path / CHECKPOINT_NAME
        if path.is_dir() and (path / RECIPE_NAME).is_file():
            raise DataError(
                f"{path}: the run is not finished, it has no {CHECKPOINT_NAME}", hint=hint_to_finish(space, path)
            )
    if Path(name).exists() and not Path(name).is_dir():
        from lupctl.core.system.disk.reading import say_missing

        raise DataError(f"{name}: {say_missing(Path(name))}; a run or a checkpoint was expected", hint=f"ls -l {name}")
    raise DataError(
        f"no checkpoint {name!r}: neither a file, nor a run's folder, nor a run in {space.runs}",
        hint=_hint_for_missing(space, name, others, fitting),
    )


def _hint_for_pack(space: Workspace, path: Path, others: Sequence[str], fitting: Sequence[Path] | None) -> str:
    """The newest run, which is what should have been named, else how to do without or to make one."""
    runs = list_runs(space) if fitting is None else fitting
    if runs:
        return f"did you mean {runs[0].name}?"
    return f"--from {others[-1]}" if others else f"make a run first: lupctl finetune {path} --from scratch"


def published_path(space: Workspace, name: str) -> Path:
    """The path of the checkpoint made from published weights; `find_checkpoint` finds it by this name."""
    return space.models / f"{name}.safetensors"


def _hint_for_missing(space: Workspace, name: str, others: Sequence[str], fitting: Sequence[Path] | None) -> str:
    from lupctl.core.data.catalog.weights import PUBLISHED

    if fitting is not None:
        meant = [*others, *(run.name for run in fitting)]
        guess = nearest_name(name, meant) or next(iter(meant[len(others) :]), None)
        return f"did you mean {guess}?" if guess else f"--from {others[-1]}" if others else hint_for_run(space)
    published = [one.name for one in PUBLISHED]
    if name in published:
        return f"lupctl model download {name} --accept-terms"
    runs = [run.name for run in list_runs(space)]
    guess = nearest_name(name, [*others, *runs, *published]) or (runs[0] if runs else None)
    return f"did you mean {guess}?" if guess else hint_for_run(space)


def pick_checkpoint(space: Workspace, name: str | None, progress: Progress) -> Path:
    """The checkpoint that is named, else that of the newest run.

    Raises:
        DataError: there is none.
    """
    return find_checkpoint(space, str(newest_run(space, progress)) if name is None else name)


def pick_network(space: Workspace, name: str | None, progress: Progress) -> Path:
    """As `pick_checkpoint`, but a file in ONNX or OpenVINO's format is a network, too.

    Raises:
        DataError: there is none.
    """
    if name is not None and Path(name).suffix in RUN_ALONE and Path(name).is_file():
        return Path(name)
    return pick_checkpoint(space, name, progress)


def newest_finetuning(space: Workspace, progress: Progress) -> Path:
    """The newest fine-tuning run.

    Raises:
        DataError: there is none that is finished.
    """
    runs = space.finished_runs("finetune")
    if not runs:
        raise DataError(f"no finished fine-tuning run in {space.runs}", hint=hint_for_run(space))
    progress.say(f"run: {runs[0]} (the newest fine-tuning run)")
    return runs[0]


def newest_run(space: Workspace, progress: Progress) -> Path:
    """The newest fine-tuning run, else the newest pre-training run.

    Raises:
        DataError: there is no finished run.
    """
    for command, kind in (("finetune", "fine-tuning"), ("pretrain", "pre-training")):
        runs = space.finished_runs(command)
        if runs:
            progress.say(f"run: {runs[0]} (the newest {kind} run)")
            return runs[0]
    raise DataError(f"{space.runs}: no finished run", hint=hint_for_run(space))
