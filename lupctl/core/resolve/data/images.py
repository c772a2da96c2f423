"""The images that a dump reads, and where its features go."""

from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.packs import pick_images
from lupctl.core.resolve.hints import hint_to_dump
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace, read_run

SWEEP_NAME = "sweep"


def find_images_of_run(space: Workspace, name: str | None, checkpoint: Path, progress: Progress) -> Path:
    """The pack or folder a user means, else the one the run was trained on; reports a choice between two.

    Raises:
        DataError: it does not exist, or the checkpoint belongs to no run.
    """
    if name is not None:
        return pick_images(space, name, progress)
    run = checkpoint.parent
    if checkpoint.name != CHECKPOINT_NAME or not (run / "run.json").is_file():
        raise DataError(
            f"{checkpoint}: belongs to no run, so there is no default dataset", hint=hint_to_dump(space, checkpoint)
        )
    facts = read_run(run)
    if facts.get("pack") and Path(facts["pack"]).exists():
        return Path(facts["pack"])
    datasets = [facts["dataset"]] if facts.get("dataset") else facts.get("packs") or []
    if len(datasets) != 1:
        raise DataError(f"{run}: was trained on {len(datasets)} packs", hint=hint_to_dump(space, run))
    return space.find_pack(datasets[0])


def default_out(checkpoint: Path, source: Path, settings: str = "") -> Path:
    """The default features file: next to the checkpoint, named after the data.

    Args:
        checkpoint: the network.
        source: the pack or folder.
        settings: what is set of the network, as part of a name; then the file is in a folder of such files.
    """
    if not settings:
        return checkpoint.parent / f"{source.resolve().stem}.features.h5"
    return sweep_folder(checkpoint) / f"{source.resolve().stem}.{settings}.features.h5"


def own_folder(features: Path) -> Path:
    """The folder of the network that made some features: theirs, or the one above a folder of sweeps."""
    folder = features.parent
    return folder.parent if folder.name.split(".")[-1] == SWEEP_NAME else folder


def sweep_folder(checkpoint: Path) -> Path:
    """The folder of what is made with settings that are not a network's own: in its run's, or next to a checkpoint."""
    own = SWEEP_NAME if checkpoint.name == CHECKPOINT_NAME else f"{checkpoint.stem}.{SWEEP_NAME}"
    return checkpoint.parent / own
