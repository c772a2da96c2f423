"""Up-to-date features of a run: those that exist, or new ones if they are missing or out of date."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.data.images import default_out, find_images
from lupctl.core.resolve.retrieval.features import Target, resolve_features
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch


def resolve_files(
    space: Workspace,
    names: list[str],
    device: "torch.device",
    progress: Progress,
    *,
    command: tuple[str, ...],
    elsewhere: Path | None = None,
) -> tuple[Path, ...]:
    """The features files of one evaluation: those of one run, or one or more files that are named.

    Args:
        space: where runs are.
        names: a run, or features files; none for the newest fine-tuning run.
        device: where missing features are computed.
        progress: lines and bars.
        command: for the record of features that are made.
        elsewhere: as `current_features` takes it.

    Raises:
        DataError: a name matches nothing, or no finished fine-tuning run.
        UsageError: several names that are not all files, or a run with features of several datasets.
    """
    if len(names) < 2:
        target = resolve_features(space, names[0] if names else None, progress=progress)
        return (current_features(space, target, device, progress, command=command, elsewhere=elsewhere),)
    for name in names:
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: not a file; several names must all be features files of one network",
                hint=f"compare runs with: lupctl eval --compare {' '.join(names)}",
            )
    return tuple(Path(name) for name in names)


def current_features(
    space: Workspace,
    target: Target,
    device: "torch.device",
    progress: Progress,
    *,
    command: tuple[str, ...],
    elsewhere: Path | None = None,
) -> Path:
    """The features of a target; a run's are made if there are none, and made again if its network has changed.

    Args:
        space: where runs are.
        target: what was named.
        device: where missing features are computed.
        progress: lines and bars.
        command: for the record of features that are made.
        elsewhere: the folder for features of a run that cannot be written to; None raises then.

    Raises:
        DataError: the run is not finished, its images are gone, or nothing can be written.
    """
    if target.run is None:
        assert target.features is not None
        return target.features
    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.dump.run import dump
    from lupctl.core.system.disk.atomic import file_fingerprint, is_writable

    checkpoint = find_checkpoint(space, str(target.run))
    fingerprint = file_fingerprint(checkpoint)

    def is_current(path: Path) -> bool:
        return read_features_head(path).record["parents"].get("checkpoint") in (None, fingerprint)

    features = target.features
    if features is not None and is_current(features):
        return features
    images = find_images(space, None, checkpoint, progress)
    out = features or default_out(checkpoint, images)
    if elsewhere is not None and not is_writable(out):
        features = out = elsewhere / f"{checkpoint.parent.name}-{out.name}"
        if out.is_file() and is_current(out):
            return out
    elif features is not None:
        progress.say(f"{features}: from an older network; made again")
    progress.say(f"features: {out} from {images}")
    job = DumpJob(checkpoint, images, out, force=features is not None, command=command)
    return dump(job, device, progress).path
