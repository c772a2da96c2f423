"""Up-to-date features of a run: those that exist, or new ones if they are missing or out of date."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import CameraUse
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.data.images import default_out, find_images_of_run
from lupctl.core.resolve.retrieval.features import Target, resolve_features
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.stages.dump.job import DumpJob


def find_files(
    space: Workspace,
    names: list[str],
    progress: Progress,
    *,
    command: tuple[str, ...],
    elsewhere: Path | None = None,
    cameras: CameraUse | None = None,
) -> "tuple[tuple[Path, ...], DumpJob | None]":
    """The features files of one evaluation, and the dump that a run's need first; nothing is written.

    Args:
        space: where runs are.
        names: a run, or features files; none for the newest fine-tuning run.
        progress: lines and bars.
        command: for the record of features that are made.
        elsewhere, cameras: as `find_features` takes them.

    Raises:
        DataError: a name matches nothing, or no finished fine-tuning run.
        UsageError: several names that are not all files, a run with features of several datasets, or features that
            were made by another rule for cameras.
    """
    if len(names) < 2:
        target = resolve_features(space, names[0] if names else None, progress=progress)
        path, job = find_features(space, target, progress, command=command, elsewhere=elsewhere, cameras=cameras)
        return (path,), job
    for name in names:
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: not a file; several names must all be features files of one network",
                hint=f"compare runs with: lupctl eval --compare {' '.join(names)}",
            )
    for name in names:
        check_rule(Path(name), cameras)
    return tuple(Path(name) for name in names), None


def find_features(
    space: Workspace,
    target: Target,
    progress: Progress,
    *,
    command: tuple[str, ...],
    elsewhere: Path | None = None,
    cameras: CameraUse | None = None,
) -> "tuple[Path, DumpJob | None]":
    """The features of a target, and the dump that has to make them if a run has none, or those of an older network.

    Args:
        space: where runs are.
        target: what was named.
        progress: lines and bars.
        command: for the record of features that are made.
        elsewhere: the folder for features of a run that cannot be written to; None keeps them in the run.
        cameras: the rule for the images' cameras, for a network that takes them; None takes features by any rule.

    Raises:
        DataError: the run is not finished, or its images are gone.
        UsageError: there are features that were made by another rule for cameras, or the network takes no cameras.
    """
    if target.run is None:
        assert target.features is not None
        check_rule(target.features, cameras)
        return target.features, None
    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.system.disk.atomic import file_fingerprint, is_writable

    checkpoint = find_checkpoint(space, str(target.run))
    fingerprint = file_fingerprint(checkpoint)

    def is_current(path: Path) -> bool:
        if read_features_head(path).record["parents"].get("checkpoint") not in (None, fingerprint):
            return False
        check_rule(path, cameras, hint=f"make them again: lupctl dump {target.run} --cameras {cameras} --force")
        return True

    if target.features is not None and is_current(target.features):
        return target.features, None
    images = find_images_of_run(space, None, checkpoint, progress)
    out = target.features or default_out(checkpoint, images)
    if elsewhere is not None and not is_writable(out):
        out = elsewhere / f"{checkpoint.parent.name}-{out.name}"
        if out.is_file() and is_current(out):
            return out, None
    return out, DumpJob(checkpoint, images, out, cameras=cameras, force=out.is_file(), command=command)


def check_rule(path: Path, cameras: CameraUse | None, *, hint: str = "") -> None:
    """Refuses features that are not those that a rule for cameras gives.

    Args:
        path: the features.
        cameras: the rule; None for any.
        hint: what to do then.

    Raises:
        UsageError: they are by another rule, or their network takes no cameras.
    """
    if cameras is None:
        return
    from lupctl.core.formats.features.cameras import read_counts, same_result
    from lupctl.core.formats.features.foreign import read_any_record

    made = read_counts(read_any_record(path))
    if made is None:
        raise UsageError(
            f"--cameras {cameras}: the network of {path} takes no cameras, or is not known", hint="leave out --cameras"
        )
    if not same_result(made, cameras):
        raise UsageError(
            f"--cameras {cameras}: the features in {path} are by the rule {made}",
            hint=hint or f"make others: lupctl dump RUN DATASET --cameras {cameras} --out OTHER.features.h5",
        )


def make_features(job: "DumpJob", device: "torch.device", progress: Progress) -> Path:
    """Makes the features that `find_features` found missing.

    Raises:
        DataError: nothing can be written, or an image of the pack cannot be decoded.
    """
    from lupctl.core.stages.dump.run import dump

    if job.force:
        progress.say(f"{job.out}: from an older network; made again")
    progress.say(f"features: {job.out} from {job.data}")
    return dump(job, device, progress).path


def current_features(
    space: Workspace, target: Target, device: "torch.device", progress: Progress, *, command: tuple[str, ...]
) -> Path:
    """The features of a target; a run's are made if there are none, and made again if its network has changed.

    Args:
        space, target, progress, command: as `find_features` takes them.
        device: where missing features are computed.

    Raises:
        DataError: the run is not finished, its images are gone, or nothing can be written.
    """
    path, job = find_features(space, target, progress, command=command)
    return path if job is None else make_features(job, device, progress)
