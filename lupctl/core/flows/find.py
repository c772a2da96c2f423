"""A person in footage: crops, features and the search, each made only if it is missing or out of date."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.building import CropOptions, resolve_build
from lupctl.core.resolve.retrieval.footage import Footage, find_boxes
from lupctl.core.resolve.retrieval.limits import Limits
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.data.video.clock import Clocks
    from lupctl.core.ranking.reports.model.find import FindResult
    from lupctl.core.stages.build.job import BuildJob
    from lupctl.core.stages.find.job import FindJob

# Two crops of a person that are a fifth of a second apart say nearly the same; more of them only cost time.
CROPS_PER_S = 5
MIN_SCORE = 0.72  # of a detector's boxes, as for LUPerson
SHOWN_KEY = 12


@dataclass(frozen=True)
class FindOrder:
    """What a user wants to know.

    Args:
        queries: pictures of one person.
        footage: where to look.
        checkpoint: the network.
        limits: of a report.
        options: where the persons of a video are.
        every: crops of every N-th frame; None for about five in a second.
        track: link boxes into tracklets; None does it where nobody has a number.
        rate: frames per second; None as the video says.
        after_s, before_s: only from these times.
        top: how many tracklets of each video to list.
        page: the HTML page.
        workers: decoding processes.
        force: overwrite the page.
        command: the command line, for the records.
    """

    queries: tuple[Path, ...]
    footage: Footage
    checkpoint: Path
    limits: Limits
    options: CropOptions = field(default_factory=CropOptions)
    every: int | None = None
    track: bool | None = None
    rate: float | None = None
    after_s: float | None = None
    before_s: float | None = None
    top: int = 20
    page: Path | None = None
    workers: int | None = None
    force: bool = False
    command: tuple[str, ...] = ()


def find_person(space: Workspace, order: FindOrder, device: "torch.device", progress: Progress) -> "FindResult":
    """Looks for a person; crops and features are kept, and used again while nothing has changed.

    Args:
        space: where they are kept.
        order: who and where.
        device: where features are computed.
        progress: lines and bars.

    Raises:
        DataError: a picture or the footage is missing or damaged.
        UsageError: the page exists, or options do not go together.
    """
    from lupctl.core.stages.find.job import check_find
    from lupctl.core.stages.find.run import find

    job = _build_job(order)
    check_find(job)
    footage = order.footage
    match footage.kind:
        case "images":
            job = replace(job, images=footage.path, is_pack=False)
        case "pack":
            job = replace(job, images=footage.path, clocks=pack_clocks(footage.path, order.rate))
        case "videos":
            build = plan_crops(space, order, progress)
            images, videos = _cut_crops(build, progress)
            job = replace(job, images=images, videos=videos, clocks=build_clocks(build, order.rate))
    if job.images is not None:
        job = replace(job, features=_compute_features(order, job.images, device, progress))
    return find(job, device, progress)


def plan_find(space: Workspace, order: FindOrder, progress: Progress) -> dict[str, object]:
    """What `find_person` would do; nothing is cut or computed.

    Raises:
        DataError, UsageError: as `find_person`, except for errors that only the images or the features reveal.
    """
    from lupctl.core.stages.build.plan import plan_build
    from lupctl.core.stages.find.job import check_find

    check_find(_build_job(order))
    plan: dict[str, object] = {
        "person": [str(query) for query in order.queries],
        "in": str(order.footage.path),
        "kind": order.footage.kind,
        "checkpoint": str(order.checkpoint),
    }
    if order.footage.kind == "videos":
        build = plan_crops(space, order, progress)
        planned = plan_build(build)
        state = {"absent": "to be cut", "current": "there", "changed": "to be cut again"}[planned.state]
        plan |= {"videos": len(planned.tasks), "every": build.cutting.every, "track": build.cutting.track}
        plan |= {"crops": f"{planned.path} ({state})"}
    return {**plan, "page": None if order.page is None else str(order.page)}


def _build_job(order: FindOrder) -> "FindJob":
    """The search, without the crops and the features, which are not made yet."""
    from lupctl.core.stages.find.job import FindJob

    return FindJob(
        queries=order.queries,
        checkpoint=order.checkpoint,
        features=None,
        images=None,
        source=order.footage.title,
        after_s=order.after_s,
        before_s=order.before_s,
        limits=order.limits.limits,
        why_no_limits=order.limits.why_not,
        link=order.track,
        top=order.top,
        page=order.page,
        force=order.force,
        command=order.command,
    )


def plan_crops(space: Workspace, order: FindOrder, progress: Progress) -> "BuildJob":
    """The build of the crops of videos; nothing is cut.

    Raises:
        DataError: nothing says where the persons are.
        UsageError: options do not go together.
    """
    from lupctl.core.stages.find.job import check_links

    footage = order.footage
    options = find_boxes(footage, order.options, progress)
    if options.detector is not None or options.format == "luperson":
        # LUPerson also left out whoever is narrower than 48 pixels; here somebody far away is looked for as well.
        options = replace(options, filters="none", min_score=MIN_SCORE)
    job = resolve_build(
        space, footage.name, options, videos=footage.path, out=footage.crops, cameras="video", global_ids=False
    )
    every = order.every or _pick_every(job, order.rate, progress)
    track = order.track
    if track is None:
        track = not _has_numbers(job)
    if track:
        check_links(footage.title)
    cutting, are_global = replace(job.cutting, every=every, track=track), job.global_ids and not track
    return replace(job, cutting=cutting, global_ids=are_global, command=_kept_command(order))


def _pick_every(job: "BuildJob", rate: float | None, progress: Progress) -> int:
    clocks = build_clocks(job, rate)
    rates = [found for name in clocks.names if (found := clocks.of(name).rate)]
    every = max(1, round(min(rates) / CROPS_PER_S)) if rates else 1
    if every > 1:
        progress.say(f"crops: from one frame in {every} ({min(rates):g} a second); --every 1 takes all")
    return every


def _has_numbers(job: "BuildJob") -> bool:
    """Whether the boxes say which of them show the same person."""
    from lupctl.core.data.video.boxes import UNKNOWN_PERSON, Boxes
    from lupctl.core.data.video.detections import read_video_detections
    from lupctl.core.stages.build.plan import plan_build

    for task in plan_build(job).tasks:
        boxes = task.detections
        if isinstance(boxes, Path):
            assert job.cutting.boxes_from is not None
            boxes = read_video_detections(boxes, job.cutting.boxes_from, task.name)
        if isinstance(boxes, Boxes) and (boxes.person != UNKNOWN_PERSON).any():
            return True
    return False


def build_clocks(job: "BuildJob", rate: float | None) -> "Clocks":
    """When the frames of the videos of a build were shown."""
    from lupctl.core.data.video.clock import Clocks

    return Clocks(job.videos, boxes_from=job.cutting.boxes_from, first_frame=job.cutting.first_frame, rate=rate)


def pack_clocks(path: Path, rate: float | None) -> "Clocks":
    """When the frames of a pack's crops were shown, as far as its videos are still where they were."""
    from lupctl.core.data.video.clock import Clocks
    from lupctl.core.formats.pack.read import read_pack_record

    source: dict[str, Any] = read_pack_record(path).get("source") or {}
    cutting = source.get("cutting")
    if not isinstance(cutting, dict):
        return Clocks(None, rate=rate)
    root = Path(str(source.get("root")))
    return Clocks(
        root if root.exists() else None,
        boxes_from=cutting.get("boxes_from"),
        first_frame=cutting.get("first_frame"),
        rate=rate,
    )


def _cut_crops(job: "BuildJob", progress: Progress) -> tuple[Path | None, tuple[str, ...]]:
    """The pack of a build's crops, made again if a video or its boxes have changed, and the videos searched.

    There is no pack if nobody is in any of them.
    """
    from lupctl.core.formats.pack.read import read_pack_record
    from lupctl.core.stages.build.part import read_outcome
    from lupctl.core.stages.build.plan import plan_build
    from lupctl.core.stages.build.run import build

    plan = plan_build(job)
    names = tuple(task.name for task in plan.tasks)
    if plan.state == "changed":
        progress.say(f"{plan.path}: of another state of the video or its boxes, or cut in another way; made again")
    try:
        path = build(replace(job, force=plan.state == "changed"), progress).path
    except DataError:
        outcomes = [read_outcome(task) for task in plan.tasks]
        if all(outcome is not None and not outcome.crops and not outcome.quarantine for outcome in outcomes):
            return None, names
        raise
    if plan.state != "current":
        progress.say(f"crops: {path}; used again while the video is the same")
    faulty = {str(entry["name"]) for entry in read_pack_record(path)["quarantine"]}
    return path, tuple(name for name in names if name not in faulty)


def _compute_features(order: FindOrder, images: Path, device: "torch.device", progress: Progress) -> Path:
    """The features of the footage by the network; made again if the images have changed."""
    import torch

    from lupctl.core.choices import ROLE_NAMES
    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint
    from lupctl.core.stages.dump.inputs import open_images
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.dump.run import dump

    roles = tuple(ROLE_NAMES.values())
    digest = open_images(images, roles).digest
    network = recorded_fingerprint(order.checkpoint).removeprefix("sha256:")[:SHOWN_KEY]
    flip = "-flip" if order.limits.flip else ""
    folder, made = order.footage.folder, hashlib.sha256(digest.encode()).hexdigest()[:SHOWN_KEY]
    out = folder / f"{network}{flip}-{made}.features.h5"
    if out.is_file():
        progress.say(f"features: {out}")
        return out
    for older in folder.glob(f"{network}{flip}-*.features.h5"):
        progress.say(f"{older}: of older images; made again")
        older.unlink()
    progress.say(f"features: {out} from {images}")
    job = DumpJob(
        order.checkpoint, images, out, roles=roles, flip=order.limits.flip, workers=order.workers,
        command=_kept_command(order),
    )  # fmt: skip
    result = dump(job, device if job.runtime is None else torch.device("cpu"), progress)
    if result.quarantine:
        progress.warn(f"files left out: {name_some(result.quarantine, between='; ')}")
    return result.path


def _kept_command(order: FindOrder) -> tuple[str, ...]:
    """The command for the records of what is kept: the same whoever is looked for."""
    return ("lupctl", "find", "--in", str(order.footage.path))
