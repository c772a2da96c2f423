"""The next thing to type, by what a workspace holds: for the hints of errors."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from lupctl.core.system.command_line import read_command
from lupctl.core.workspace import CHECKPOINT_NAME, RECIPE_NAME, Workspace, find_home, open_workspace, read_run


def list_runs(space: Workspace) -> list[Path]:
    """Finished runs, the newest fine-tuning run first, then those of pre-training."""
    return [*space.finished_runs("finetune"), *space.finished_runs("pretrain")]


def hint_for_data(workspace: Workspace, named: str, command: str) -> str:
    """The way from a dataset to its scores: the run that was trained on it, else features from a run, else a run."""
    runs = list_runs(workspace)
    for run in runs:
        facts = read_run(run)
        if named == facts.get("dataset") or same_path(Path(named), Path(str(facts.get("pack", "")))):
            return f"lupctl eval {run.name}, trained on it" if command == "eval" else f"did you mean {run.name}?"
    if runs:
        return f"lupctl dump {runs[0].name} {named}"
    return f"lupctl finetune {named}" if command == "eval" else f"first make a run: lupctl finetune {named}"


def same_path(path: Path, other: Path) -> bool:
    """Whether two paths that exist are one file or folder, also through links."""
    return path.exists() and other.exists() and path.samefile(other)


def is_finished(run: Path) -> bool:
    """Whether a run's folder has its checkpoint."""
    return (run / CHECKPOINT_NAME).is_file()


def hint_to_finish(space: Workspace, run: Path) -> str:
    """The command that continues a run that was stopped, as its recipe records it."""
    try:
        command = read_command((run / RECIPE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"start it again: rm -r {quote(str(run))}"
    if not command:
        return "type the command that made it again"
    home = "" if space == open_workspace() else f" --home {quote(str(space.home))}"
    return f"{command} --out {quote(str(run))}{home}"


def hint_to_dump(space: Workspace, checkpoint: Path) -> str:
    """The command that makes features with the network of a checkpoint, of a pack of the workspace if it has one."""
    packs = space.pack_paths()
    return f"lupctl dump {quote(str(checkpoint))} {packs[0].stem if packs else 'FOLDER'}"


def hint_to_finetune(space: Workspace, arch: str, besides: Sequence[str]) -> str:
    """The command that fine-tunes a network on another dataset than some, if one with labels is here; else its name.

    Args:
        space: the workspace.
        arch: as it is typed after `--arch`.
        besides: the datasets.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack

    for path in space.pack_paths():
        pack = open_pack(path)
        is_labelled = (pack.samples.role == ROLE_CODES["train"]) & (pack.samples.person >= 0)
        if pack.dataset not in besides and is_labelled.any():
            return f"first lupctl finetune {path.stem} --arch {arch}, or name a network with --from"
    return "name a network that was fine-tuned elsewhere with --from; lupctl model list has published ones"


def hint_for_run(space: Workspace) -> str:
    """The workspace that was meant, else the command that makes a first run out of what this one holds."""
    meant = find_home(space.home)
    if meant is not None:
        return f"--home {meant}"
    stopped = sorted(path.parent for path in space.runs.glob(f"*/{RECIPE_NAME}") if not is_finished(path.parent))
    if stopped:
        return f"{stopped[0].name} was stopped; continue it: {hint_to_finish(space, stopped[0])}"
    packs = space.pack_paths()
    if packs:
        return f"lupctl finetune {packs[0].stem} --from scratch"
    if space.raw.is_dir() and any(space.raw.iterdir()):
        return "lupctl data pack, then: lupctl finetune DATASET"
    return "lupctl init lists the commands from here to scores; lupctl demo makes some"
