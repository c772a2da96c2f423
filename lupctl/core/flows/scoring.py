"""Scores of a pack's images: features of two networks, which may be spread over machines, then what moved how far."""

from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lupctl.core.formats.weights.header import CheckpointHeader
    from lupctl.core.resolve.training.placement import DumpPlace
    from lupctl.core.stages.dump.job import DumpJob, Shard
    from lupctl.core.stages.score.job import Compared, ScoreJob
    from lupctl.core.stages.score.run import ScoreResult


def score_images(
    job: "ScoreJob", where: "DumpPlace", progress: Progress, *, shard: "Shard | None" = None, leads: bool = True
) -> "ScoreResult | None":
    """The scores of a job; they are only read again where the same ones are there.

    Features are kept in a hidden folder beside the scores until those are written, so that a command that was stopped
    continues, and the shards of several machines become one.

    Args:
        job: what to score.
        where: the devices.
        progress: lines and bars.
        shard: the part of the images whose features this command computes; None takes all.
        leads: whether this process scores for its job, where a launcher started several.

    Returns:
        the scores; None where shards of others are still missing, or process 0 ran on another machine.

    Raises:
        DataError, FormatError, UsageError: as `compare_networks`, a dump and `score_features`.
        StoppedError: a request to stop; finished chunks of features are kept.
    """
    from lupctl.core.stages.score.job import compare_networks
    from lupctl.core.stages.score.run import is_made, read_result, score_features
    from lupctl.core.system.disk.atomic import check_absent

    compared = compare_networks(job)
    if not job.force and is_made(job, compared):
        progress.say(f"{job.out}: the same scores are there already; --force makes them again")
        return _warn_of_flat(read_result(job), progress)
    check_absent(job.out, force=job.force)
    jobs = plan_dumps(job, compared, shard)
    if _make_features(jobs, where, progress):
        progress.say("the scores are written by the command that finds the features of all shards")
        return None
    if not leads:
        return None
    result = score_features(job, compared, jobs[0].out, jobs[1].out)
    _forget([one.out for one in jobs])
    return _warn_of_flat(result, progress)


def _warn_of_flat(result: "ScoreResult", progress: Progress) -> "ScoreResult":
    """The result, with a warning where its scores rank nothing but rounding."""
    if result.is_flat:
        progress.warn(
            f"{result.path}: all scores are the same to rounding, so that they do not say which images are better; "
            "fine-tuning did not change the trunk"
        )
    return result


def plan_dumps(job: "ScoreJob", compared: "Compared", shard: "Shard | None") -> "tuple[DumpJob, DumpJob]":
    """The dumps of both networks, of all images of the pack."""
    return (
        _plan_dump(job, job.before, compared.before, "before", compared, shard),
        _plan_dump(job, job.after, compared.after, "after", compared, shard),
    )


def _plan_dump(
    job: "ScoreJob",
    checkpoint: "Path",
    header: "CheckpointHeader",
    side: str,
    compared: "Compared",
    shard: "Shard | None",
) -> "DumpJob":
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.training.nets.meta import build_empty

    # Hidden: what ends in .h5 in the folder of the packs would be taken for one.
    folder = job.out.with_name(f".{job.out.name}.work")
    return DumpJob(
        checkpoint=checkpoint,
        data=job.pack,
        out=folder / f"{side}.features.h5",
        roles=tuple(ROLE_CODES),
        pooling=compared.pooling,
        cameras=job.cameras if build_empty(header.network).needs_cameras else None,
        precision=job.precision,
        chunk=job.chunk,
        workers=job.workers,
        shard=shard,
        force=job.force,
        command=job.command,
    )


def _make_features(jobs: "Sequence[DumpJob]", where: "DumpPlace", progress: Progress) -> bool:
    """Computes the features that are not there; says whether shards of others are missing."""
    from dataclasses import replace

    from lupctl.core.stages.dump.run import dump, spread_dumps

    wanted = []
    for job in jobs:
        if not job.out.exists():
            wanted.append(job)
        elif _is_current(job):
            progress.say(f"features: {job.out} (there already)")
        else:
            wanted.append(replace(job, force=True))
    for job in wanted:
        progress.say(f"features: {job.target} of {job.checkpoint}")
    if not wanted:
        return False
    if where.placement is None:
        results = tuple(dump(job, where.device, progress) for job in wanted)
    else:
        results = spread_dumps(tuple(wanted), where.placement, progress) or ()
    return any(result.missing for result in results)


def _is_current(job: "DumpJob") -> bool:
    """Whether the features that are there are what a job would compute, the device aside."""
    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.stages.dump.work import POOLING_KEY
    from lupctl.core.stages.score.run import is_as_asked
    from lupctl.core.system.disk.atomic import file_fingerprint

    try:
        record = read_features_head(job.out).record
    except (DataError, FormatError):
        return False
    pack = open_pack(job.data)
    parents = {"checkpoint": file_fingerprint(job.checkpoint), f"pack:{pack.dataset}": pack.fingerprint}
    is_same = record["parents"] == parents and record.get(POOLING_KEY) == job.pooling
    return is_same and is_as_asked(record, precision=job.precision, cameras=job.cameras)


def _forget(features: "list[Path]") -> None:
    """Removes the features whose scores are written, and their folder where nothing else is in it."""
    from contextlib import suppress

    for path in features:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        features[0].parent.rmdir()
