"""`lupctl data build`."""

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from lupctl.cli.data.build_options import (
    AspectOption,
    CamerasOption,
    DetectionsOption,
    DetectorOption,
    EveryOption,
    ExecutorOption,
    FiltersOption,
    FirstFrameOption,
    FormatOption,
    GlobalIdsOption,
    MaxOutsideOption,
    MinKeypointOption,
    MinScoreOption,
    MinTrackOption,
    MinWidthOption,
    NameArgument,
    ProcessesOption,
    ShardOption,
    StrictOption,
    TrackOption,
    VideosOption,
    WeightsOption,
)
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
    ShardBytesOption,
)
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.core.choices import SHARD_BYTES
from lupctl.core.errors import UsageError
from lupctl.core.resolve.data.building import CropOptions, resolve_build
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.build.job import BuildJob
    from lupctl.core.stages.build.run import BuildResult

BUILD_SCHEMA = "lupctl.build/1"
PLAN_SCHEMA = "lupctl.build-plan/1"
SHARD_RULE = re.compile(r"(\d{1,6})/(\d{1,6})")
ASPECT_RULE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


def build(
    name: NameArgument,
    videos: VideosOption = None,
    detections: DetectionsOption = None,
    format: FormatOption = None,
    detector: DetectorOption = None,
    detector_weights: WeightsOption = None,
    device: DeviceOption = None,
    first_frame: FirstFrameOption = None,
    filters: FiltersOption = None,
    min_score: MinScoreOption = None,
    min_width: MinWidthOption = None,
    aspect: AspectOption = None,
    min_keypoint: MinKeypointOption = None,
    max_outside: MaxOutsideOption = None,
    every: EveryOption = 1,
    track: TrackOption = False,
    min_track: MinTrackOption = 1,
    global_ids: GlobalIdsOption = False,
    cameras: CamerasOption = None,
    shard: ShardOption = None,
    executor: ExecutorOption = "local",
    workers: ProcessesOption = None,
    shard_bytes: ShardBytesOption = SHARD_BYTES,
    strict: StrictOption = False,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Cuts persons out of videos, straight into a pack; the same command continues where it was stopped.

    Examples:

    `lupctl data build luperson --videos videos --detections dets`

    `lupctl data build pets09 --videos pets09-s2l1 --detections pets09-s2l1/gt/gt.txt --format mot`

    `lupctl data build hall --videos hall.mp4 --detector keypointrcnn --track --min-track 20 --every 5`
    """
    from lupctl.core.stages.build import run as stage
    from lupctl.core.stages.build.plan import plan_build

    options = CropOptions(
        detections=detections, format=format, detector=detector, weights=detector_weights, device=device,
        first_frame=first_frame, filters=filters, min_score=min_score, min_width=min_width, aspect=parse_aspect(aspect),
        min_keypoint=min_keypoint, max_outside=max_outside, every=every, track=track, min_track=min_track,
    )  # fmt: skip
    space = open_workspace(home)
    job = replace(
        resolve_build(space, name, options, videos=videos, out=out, cameras=cameras, global_ids=global_ids),
        shard_bytes=shard_bytes, executor=executor, workers=workers, shard=parse_shard(shard), strict=strict,
        force=force, command=recorded_command(),
    )  # fmt: skip
    if dry_run:
        plan = plan_build(job)
        _show_plan(job, len(plan.tasks), stage.num_done(plan), plan.unpaired, json=json)
        return
    result = stage.build(job, Progress(quiet=quiet))
    if json:
        print_json(BUILD_SCHEMA, asdict(result))
    else:
        _show_result(result)


def parse_aspect(aspect: str | None) -> tuple[float, float] | None:
    """The smallest and largest height / width given with `--aspect`.

    Raises:
        UsageError: not two numbers in that order.
    """
    if aspect is None:
        return None
    found = ASPECT_RULE.fullmatch(aspect)
    if found is None or float(found[1]) > float(found[2]):
        raise UsageError(f"--aspect {aspect}: smallest and largest height / width were expected", hint="--aspect 1.5:5")
    return float(found[1]), float(found[2])


def parse_shard(shard: str | None) -> tuple[int, int] | None:
    """A job's number, from 1, and the number of jobs, given with `--shard`.

    Raises:
        UsageError: not two numbers in that order.
    """
    if shard is None:
        return None
    found = SHARD_RULE.fullmatch(shard)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard {shard}: a job's number from 1 and the number of jobs were expected", hint="--shard 1/8"
        )
    return int(found[1]), int(found[2])


def _show_plan(job: "BuildJob", num_videos: int, num_done: int, unpaired: list[tuple[str, str]], *, json: bool) -> None:
    plan = {
        "path": str(job.out),
        "dataset": job.dataset,
        "videos": num_videos,
        "done": num_done,
        "left_out": [f"{name}: {reason}" for name, reason in unpaired],
        "detections": "" if job.detections is None else str(job.detections),
        **{key: value for key, value in job.cutting.facts.items() if key != "rules"},
        **job.cutting.rules.facts,
    }
    print_plan(PLAN_SCHEMA, "would build", plan, json=json)


def _show_result(result: "BuildResult") -> None:
    if result.state == "partial":
        print(f"{result.videos_done:,} of {result.videos:,} videos are done; {result.path} is not written yet")
        return
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in result.dropped.items())
    rows: list[tuple[str, object]] = [
        ("state", result.state),
        ("videos", result.videos),
        ("boxes", result.boxes),
        ("crops", result.images),
        ("from boxes that leave the frame", result.clipped),
        ("boxes without a crop", dropped or 0),
        ("persons", result.persons),
        ("problems with videos or boxes", len(result.quarantined)),
        ("encoded", f"{result.num_bytes / 2**20:,.1f} MiB in {result.shards:,} file{'s' * (result.shards != 1)}"),
        ("path", result.path),
    ]
    print_table(result.dataset, ["what", "value"], rows)
