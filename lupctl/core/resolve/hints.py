"""The next thing to type, by what a workspace holds: for the hints of errors."""

from pathlib import Path

from lupctl.core.workspace import CHECKPOINT_NAME, RECIPE_NAME, Workspace, find_home, read_run


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
    return path.exists() and other.exists() and path.samefile(other)


def is_finished(run: Path) -> bool:
    """Whether a run's folder has its checkpoint."""
    return (run / CHECKPOINT_NAME).is_file()


def hint_to_finish(space: Workspace, run: Path) -> str:
    """The command that continues a run that was stopped."""
    import tomllib

    try:
        recipe = tomllib.loads((run / RECIPE_NAME).read_text(encoding="utf-8"))
        packs, stage = [str(name) for name in recipe["data"]["packs"]], recipe["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"start it again: rm -r {run}"
    if not packs or not all(space.pack_path(name).exists() for name in packs):
        return "type the command that made it again"
    data = " ".join(packs if stage == "finetune" else [f"--data {name}" for name in packs])
    return f"lupctl {stage} {data} --recipe {run / RECIPE_NAME} --out {run}"


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
