"""`data build`: person crops from videos into a pack."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.data.video.tracking import check_tracker
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.build.assemble import assemble, list_quarantine, list_warnings
from lupctl.core.stages.build.job import BuildJob, Outcome
from lupctl.core.stages.build.part import read_outcome
from lupctl.core.stages.build.plan import BuildPlan, existing_pack, plan_build
from lupctl.core.stages.build.workers import check_ray, run_here, run_local, run_ray, stopped_error
from lupctl.core.system.disk.atomic import disk_errors_named
from lupctl.core.system.disk.lock import held_alone, held_shared
from lupctl.core.system.examples import count_things, name_rejected
from lupctl.core.system.jobs.stopping import stop_on_request
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.threads.ordered import pick_workers

State = Literal["built", "up to date", "partial"]


@dataclass(frozen=True)
class BuildResult:
    """The result of a build.

    Args:
        path: the pack, a file or a folder of shards; where it will be, if other jobs are still working.
        dataset: its name.
        state: `partial` if other jobs of the array still have videos to process.
        videos: number of videos with detections.
        videos_done: number of these that are done.
        boxes: number of boxes in the detections.
        images: number of crops.
        persons: number of persons, without unknown ones.
        cameras: number of cameras, without unknown ones.
        roles: crops per role.
        clipped: number of crops whose boxes extend beyond the frame.
        dropped: boxes without a crop, by reason; boxes = images + these.
        quarantined: problems with videos and detections, each with `name` and `reason`.
        warnings: possible problems with videos, each with `name` and `reason`.
        shards: number of files.
        num_bytes: bytes of all encoded crops.
        fingerprint: of the pack.
        seconds: duration.
    """

    path: Path
    dataset: str
    state: State
    videos: int
    videos_done: int
    boxes: int = 0
    images: int = 0
    persons: int = 0
    cameras: int = 0
    roles: dict[Role, int] = field(default_factory=dict)
    clipped: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    shards: int = 0
    num_bytes: int = 0
    fingerprint: str = ""
    seconds: float = 0.0


def build(job: BuildJob, progress: Progress) -> BuildResult:
    """Cut the crops of every video, each into its own part, then assemble the parts into one pack.

    However a build stops, the same job continues after the last complete video and gives the same bytes. These do not
    depend on the number of workers, the executor or the number of jobs that share the videos. Of those jobs, the one
    that finishes the last video makes the pack.

    Args:
        job: the settings.
        progress: for progress lines and bars.

    Raises:
        UsageError: another pack exists and `force` is not set, or a package is missing.
        DataError: no videos, no detections, no crops, another build is running, or the disk is full.
        StoppedError: on SIGTERM or Ctrl-C.
    """
    started_at = time.perf_counter()
    _check_packages(job)
    plan = plan_build(job)
    if plan.state != "absent" and not job.force:
        if plan.state == "changed":
            raise UsageError(
                f"{plan.path}: already exists and was made from other videos or in another way",
                hint="add --force, or choose another --out",
            )
        progress.say(f"{job.dataset}: {plan.path} is up to date")
        return _describe(job, plan, plan.path, "up to date", seconds=time.perf_counter() - started_at)
    with _claim_folder(job):
        _work(job, plan, progress)
        outcomes = [read_outcome(task) for task in plan.tasks]
        whole = [outcome for outcome in outcomes if outcome is not None]
        _warn(plan, whole, progress)
        if len(whole) < len(outcomes):
            return BuildResult(plan.path, job.dataset, "partial", len(outcomes), len(whole))
        if job.strict and (wrong := list_quarantine(plan, whole)):
            raise DataError(
                f"{count_things(len(wrong), 'problem')} with videos or detections, and --strict is set: "
                f"{name_rejected(wrong)}",
                hint="without --strict the pack is made of the usable rest; finished videos are kept",
            )
        made = _assemble(job, plan, whole, progress)
    if made:
        return _describe(job, plan, existing_pack(job.out), "built", seconds=time.perf_counter() - started_at)
    return BuildResult(plan.path, job.dataset, "partial", len(outcomes), len(whole))


def num_done(plan: BuildPlan) -> int:
    """Number of videos that an earlier run of the same build has finished."""
    return sum(read_outcome(task) is not None for task in plan.tasks)


def _check_packages(job: BuildJob) -> None:
    if job.executor == "ray":
        check_ray()
    if job.cutting.track:
        check_tracker()


def _work(job: BuildJob, plan: BuildPlan, progress: Progress) -> None:
    mine = plan.tasks
    if job.shard is not None:
        number, count = job.shard
        mine = mine[number - 1 :: count]
    todo = [task for task in mine if read_outcome(task) is None]
    if len(todo) < len(mine):
        progress.say(f"continuing after {count_things(len(mine) - len(todo), 'video')} finished before")
    title = f"cutting {job.dataset}"
    with progress.task(title, total=len(mine), unit="videos", done=len(mine) - len(todo)) as bar:
        crops = 0

        def done(outcome: Outcome) -> None:
            nonlocal crops
            crops += outcome.crops
            bar.advance(note=count_things(crops, "crop"))

        # A GPU has room for one copy of the network; on a CPU one network uses every core by itself.
        workers = min(job.workers or (1 if job.cutting.detector else pick_workers()), len(todo))
        match job.executor:
            case "ray" if todo:
                run_ray(todo, job.cutting, workers=job.workers, done=done)
            case "local" if workers > 1:
                run_local(todo, job.cutting, workers=workers, done=done)
            case "local" | "ray":
                run_here(todo, job.cutting, done=done)
            case _:
                assert_never(job.executor)


def _assemble(job: BuildJob, plan: BuildPlan, outcomes: list[Outcome], progress: Progress) -> bool:
    """Make the pack and remove the parts; False if another job of the array is already making it."""
    with stop_on_request() as request, _claim(job.folder / "assembling", shared=False) as is_ours:

        def check_stop() -> None:
            if request.wanted:
                raise stopped_error(request, len(outcomes), len(outcomes))

        if not is_ours:
            progress.say(f"{job.dataset}: another job of the array is assembling the pack")
            return False
        if all(task.part.with_suffix(".json").exists() for task in plan.tasks):  # else another job was quicker
            assemble(job, plan, outcomes, progress=progress, check_stop=check_stop)
            shutil.rmtree(job.folder, ignore_errors=True)
    return True


@contextmanager
def _claim_folder(job: BuildJob) -> Iterator[None]:
    """Keep out a second build of the same pack; the jobs of one array share the folder."""
    with disk_errors_named(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    with _claim(job.folder / "lock", shared=job.shard is not None) as is_ours:
        if not is_ours:
            raise DataError(f"{job.out}: another process is building it", hint="wait until it is done, or stop it")
        yield


@contextmanager
def _claim(path: Path, *, shared: bool) -> Iterator[bool]:
    """Whether this process may continue; the system releases the lock when the process ends, however it ends."""
    with ExitStack() as stack:
        with disk_errors_named(path):
            try:
                is_ours = stack.enter_context(held_shared(path) if shared else held_alone(path))
            except FileNotFoundError:  # another job has finished, and removed the folder
                is_ours = True
        yield is_ours


def _warn(plan: BuildPlan, outcomes: Sequence[Outcome], progress: Progress) -> None:
    wrong = list_quarantine(plan, outcomes)
    if wrong:
        progress.warn(f"{count_things(len(wrong), 'problem')} with videos or detections: {name_rejected(wrong)}")
    warnings = list_warnings(outcomes)
    if warnings:
        progress.warn(f"{count_things(len(warnings), 'video')} may not fit the boxes: {name_rejected(warnings)}")


def _describe(job: BuildJob, plan: BuildPlan, path: Path, state: State, *, seconds: float) -> BuildResult:
    pack = open_pack(path)
    samples, counts = pack.samples, pack.record["counts"]
    return BuildResult(
        path=path,
        dataset=job.dataset,
        state=state,
        videos=len(plan.tasks),
        videos_done=len(plan.tasks),
        boxes=counts["boxes"],
        images=len(pack),
        persons=len(np.unique(samples.person[samples.role == ROLE_CODES["train"]])),
        cameras=len(np.unique(samples.camera[samples.camera >= 0])),
        roles={role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()},
        clipped=counts["clipped"],
        dropped=counts["dropped"],
        quarantined=pack.record["quarantine"],
        warnings=counts["warnings"],
        shards=len(pack.shards),
        num_bytes=pack.num_bytes,
        fingerprint=pack.fingerprint,
        seconds=seconds,
    )
