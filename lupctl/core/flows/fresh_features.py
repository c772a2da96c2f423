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
    space: Workspace, names: list[str], device: "torch.device", progress: Progress, *, command: tuple[str, ...]
) -> tuple[Path, ...]:
    """The features files of one evaluation: those of one run, or one or more files that are named.

    Args:
        space: where runs are.
        names: a run, or features files; none for the newest fine-tuning run.
        device: where missing features are computed.
        progress: lines and bars.
        command: for the record of features that are made.

    Raises:
        DataError: a name matches nothing, or no finished fine-tuning run.
        UsageError: several names that are not all files, or a run with features of several datasets.
    """
    if len(names) < 2:
        target = resolve_features(space, names[0] if names else None, progress=progress)
        return (current_features(space, target, device, progress, command=command),)
    for name in names:
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: not a file; several names must all be features files of one network",
                hint="compare runs with: lupctl eval --compare RUN RUN",
            )
    return tuple(Path(name) for name in names)


def current_features(
    space: Workspace, target: Target, device: "torch.device", progress: Progress, *, command: tuple[str, ...]
) -> Path:
    """The features of a target; a run's are made if there are none, and made again if its network has changed."""
    if target.run is None:
        assert target.features is not None
        return target.features
    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.dump.run import dump
    from lupctl.core.system.disk.atomic import file_fingerprint

    checkpoint = find_checkpoint(space, str(target.run))
    features = target.features
    if features is not None:
        made_from = read_features_head(features).record["parents"].get("checkpoint")
        if made_from in (None, file_fingerprint(checkpoint)):
            return features
        progress.say(f"{features}: from an older network; made again")
    images = find_images(space, None, checkpoint, progress)
    out = features or default_out(checkpoint, images)
    progress.say(f"features: {out} from {images}")
    job = DumpJob(checkpoint, images, out, force=features is not None, command=command)
    return dump(job, device, progress).path
