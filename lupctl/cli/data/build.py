"""`lupctl data build`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.command_line import lasting_command
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
    ShardBytesOption,
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
)
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.core.choices import DetectionFormat, Detector
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.datasets import NAME_RULE
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.data.video.filters import FilterRules
    from lupctl.core.stages.build.job import BuildJob, Cutting
    from lupctl.core.stages.build.run import BuildResult

BUILD_SCHEMA = "lupctl.build/1"
PLAN_SCHEMA = "lupctl.build-plan/1"
DETECTION_FOLDERS = ("detections", "dets", "dets.pkl")
SHARD_RULE = re.compile(r"(\d{1,6})/(\d{1,6})")
ASPECT_RULE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")
# What has no say in the result and may differ between two runs of one build.
FLEETING_OPTIONS = ("--executor", "--shard", "--device")


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
    shard_bytes: ShardBytesOption = 8 * 2**30,
    strict: StrictOption = False,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Cuts persons out of videos, straight into a pack; the same command goes on where it was stopped.

    Examples:

    `lupctl data build luperson --videos videos --detections dets`

    `lupctl data build pets09 --videos pets09-s2l1 --detections pets09-s2l1/gt/gt.txt --format mot`

    `lupctl data build hall --videos hall.mp4 --detector keypointrcnn --track --min-track 20 --every 5`
    """
    from lupctl.core.data.video.filters import pick_filters
    from lupctl.core.stages.build import run as stage
    from lupctl.core.stages.build.job import BuildJob, Cutting
    from lupctl.core.stages.build.plan import plan_build

    if not NAME_RULE.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a dataset's name: letters, digits, - _ . only", hint="choose another")
    space = open_workspace(home)
    progress = Progress(quiet=quiet)
    boxes_at = None if detector else detections or _find_detections(space, name)
    boxes_from = _pick_format(format, name, boxes_at, detector, detections)
    is_published = boxes_from in ("luperson", "luperson-nl")
    rules = pick_filters(filters, boxes_from)
    cutting = Cutting(
        boxes_from=boxes_from,
        first_frame=first_frame,
        rules=_override(rules, min_score, min_width, _parse_aspect(aspect), min_keypoint),
        every=every,
        max_outside=max_outside if max_outside is not None else 0.05 if is_published else 1.0,
        track=track,
        min_track=_check_min_track(min_track, track=track),
        detector=detector,
        weights=_check_weights(detector_weights, detector),
        device=device,
    )
    job = BuildJob(
        dataset=name,
        videos=videos or space.raw / name / "videos",
        detections=boxes_at,
        out=out or space.packs / f"{name}.h5",
        cutting=cutting,
        global_ids=(global_ids or boxes_from == "luperson-nl") and not track,
        cameras=cameras or ("none" if is_published else "video"),
        shard_bytes=shard_bytes,
        executor=executor,
        workers=workers,
        shard=_parse_shard(shard),
        strict=strict,
        force=force,
        command=lasting_command(options=FLEETING_OPTIONS, flags=("--strict",)),
    )
    if dry_run:
        plan = plan_build(job)
        _show_plan(job, len(plan.tasks), stage.num_done(plan), plan.unpaired, json=json)
        return
    result = stage.build(job, progress)
    if json:
        print_json(BUILD_SCHEMA, asdict(result))
    else:
        _show_result(result)


def _find_detections(space: Workspace, name: str) -> Path:
    """Where the detections of a dataset lie when nobody says; the stage reports it when they are not there."""
    places = [space.raw / name / folder for folder in DETECTION_FOLDERS]
    return next((place for place in places if place.exists()), places[0])


def _pick_format(
    asked: DetectionFormat | None, name: str, found: Path | None, detector: Detector | None, given: Path | None
) -> DetectionFormat | None:
    """The format of the detections; a pickle's is never guessed, because LUPerson and LUPerson-NL count differently."""
    if detector is not None:
        if given is not None or asked is not None:
            raise UsageError(
                "--detector finds the boxes; --detections and --format bring them", hint="name one of both"
            )
        return None
    if asked is not None:
        return asked
    match name:
        case "luperson" | "luperson-nl":
            return name
    assert found is not None
    if not found.exists():
        raise DataError(
            f"{found}: there are no detections", hint="--detections FOLDER --format FORMAT, or --detector fasterrcnn"
        )
    match found.suffix.lower():
        case ".txt":
            return "mot"
        case ".json":
            return "coco"
        case _:
            raise UsageError(
                f"{found}: which format do these detections have? LUPerson's frames begin with 1, LUPerson-NL's with 0",
                hint="--format luperson|luperson-nl|mot|coco, or --detector fasterrcnn",
            )


def _override(
    rules: "FilterRules",
    min_score: float | None,
    min_width: float | None,
    aspect: tuple[float, float] | None,
    min_keypoint: float | None,
) -> "FilterRules":
    from lupctl.core.data.video.filters import FilterRules

    return FilterRules(
        min_score=rules.min_score if min_score is None else min_score,
        min_width=rules.min_width if min_width is None else min_width,
        aspect=aspect or rules.aspect,
        min_keypoint=rules.min_keypoint if min_keypoint is None else min_keypoint,
    )


def _parse_aspect(aspect: str | None) -> tuple[float, float] | None:
    if aspect is None:
        return None
    found = ASPECT_RULE.fullmatch(aspect)
    if found is None or float(found[1]) > float(found[2]):
        raise UsageError(f"--aspect {aspect}: smallest and largest height / width were expected", hint="--aspect 1.5:5")
    return float(found[1]), float(found[2])


def _parse_shard(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    found = SHARD_RULE.fullmatch(shard)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard {shard}: a job's number from 1 and the number of jobs were expected", hint="--shard 1/8"
        )
    return int(found[1]), int(found[2])


def _check_min_track(min_track: int, *, track: bool) -> int:
    if min_track > 1 and not track:
        raise UsageError("--min-track judges tracklets, and none are made", hint="add --track")
    return min_track


def _check_weights(weights: Path | None, detector: Detector | None) -> Path | None:
    if weights is not None and detector is None:
        raise UsageError("--detector-weights belongs to a detector, and none is named", hint="--detector fasterrcnn")
    if weights is not None and not weights.is_file():
        raise UsageError(f"--detector-weights {weights}: there is no such file", hint="check the path with ls -l")
    return weights


def _show_plan(job: "BuildJob", num_videos: int, num_done: int, unpaired: list[tuple[str, str]], *, json: bool) -> None:
    plan = {
        "path": str(job.out),
        "dataset": job.dataset,
        "videos": num_videos,
        "done": num_done,
        "left_out": [f"{name}: {reason}" for name, reason in unpaired],
        "detections": "" if job.detections is None else str(job.detections),
        **{key: value for key, value in job.cutting.facts.items() if key != "rules"},
        **_rule_words(job.cutting),
    }
    print_plan(PLAN_SCHEMA, "would build", plan, json=json)


def _rule_words(cutting: "Cutting") -> dict[str, object]:
    return dict(cutting.rules.facts)


def _show_result(result: "BuildResult") -> None:
    if result.state == "partial":
        print(f"{result.videos_done:,} of {result.videos:,} videos are done; {result.path} is not there yet")
        return
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in result.dropped.items())
    rows: list[tuple[str, object]] = [
        ("state", result.state),
        ("videos", result.videos),
        ("boxes", result.boxes),
        ("crops", result.images),
        ("of boxes that leave the frame", result.clipped),
        ("boxes without a crop", dropped or 0),
        ("persons", result.persons),
        ("wrong with videos or boxes", len(result.quarantined)),
        ("encoded", f"{result.num_bytes / 2**20:,.1f} MiB in {result.shards:,} file{'s' * (result.shards != 1)}"),
        ("path", result.path),
    ]
    print_table(result.dataset, ["what", "value"], rows)
