"""Plan of a build: which videos to process, and whether it was done before."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from lupctl.core.choices import DetectionFormat
from lupctl.core.data.video.boxes import Boxes
from lupctl.core.data.video.detections import read_detections
from lupctl.core.data.video.listing import Video, find_detections, find_videos, match_names
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.pack.read import read_pack_record
from lupctl.core.stages.build.job import BuildJob, VideoTask

State = Literal["absent", "current", "changed"]
MOST_CAMERAS = 2**15 - 1
Detections = Mapping[str, Path | Boxes]


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    Args:
        tasks: videos to process, sorted by name.
        unpaired: videos without detections and detections without a video, with name and reason.
        digest: identifies videos, detections and settings as they are now.
        path: the existing pack, a file or a folder of shards; else where it will be.
        state: whether a pack exists, and whether it was made from the same.
    """

    tasks: list[VideoTask]
    unpaired: list[tuple[str, str]]
    digest: str
    path: Path
    state: State


def plan_build(job: BuildJob) -> BuildPlan:
    """Find the videos and their detections; decodes nothing.

    Raises:
        DataError: no videos, no detections, or no matching pair.
        UsageError: incompatible settings.
    """
    if job.out.suffix != ".h5":
        raise UsageError(f"{job.out}: the name of a pack must end in .h5", hint=f"--out {job.out}.h5")
    videos, unpaired = _drop_namesakes(find_videos(job.videos))
    _check_nested(videos)
    if job.cameras == "video" and len(videos) > MOST_CAMERAS:
        raise UsageError(f"{len(videos):,} videos; a pack has room for {MOST_CAMERAS:,} cameras", hint="--cameras none")
    pairs: Mapping[str, Path | Boxes | None]
    if job.detections is None:
        pairs = dict.fromkeys((video.name for video in videos), None)
    else:
        assert job.cutting.boxes_from is not None
        found = _find_boxes(job.detections, job.cutting.boxes_from, videos)
        matched = match_names([video.name for video in videos], found)
        pairs = {name: found[other] for name, other in matched.items()}
        unpaired += [(video.name, "no detections") for video in videos if video.name not in pairs]
        unpaired += [(name, "detections without a video") for name in sorted(found.keys() - set(matched.values()))]
    if not pairs:
        raise _no_pair(job, videos, found)
    settings = _settings_digest(job)
    tasks = [
        _build_task(job, number, video, pairs[video.name], settings)
        for number, video in enumerate(videos, start=1)
        if video.name in pairs
    ]
    content = [[task.number, task.name, task.key] for task in tasks]
    digest = _digest([settings, content, unpaired, job.global_ids, job.cameras])
    path = existing_pack(job.out)
    return BuildPlan(tasks, unpaired, digest, path, _state_of(path, digest))


def _drop_namesakes(videos: list[Video]) -> tuple[list[Video], list[tuple[str, str]]]:
    kept: dict[str, Video] = {}
    rejected = []
    for video in videos:
        if video.name in kept:
            rejected.append((video.name, f"{video.path.name} has the same name as {kept[video.name].path.name}"))
        else:
            kept[video.name] = video
    return list(kept.values()), rejected


def _check_nested(videos: list[Video]) -> None:
    """Reject a video `a` next to a folder `a` of videos, which would mix the names of their crops."""
    names = {video.name for video in videos}
    for video in videos:
        parts = video.name.split("/")
        for length in range(1, len(parts)):
            if (above := "/".join(parts[:length])) in names:
                raise DataError(
                    f"{video.path}: is in a folder with the same name as the video {above}", hint="rename one of them"
                )


def _find_boxes(root: Path, kind: DetectionFormat, videos: list[Video]) -> Detections:
    if root.is_dir():
        return find_detections(root, kind)
    if not root.is_file():
        raise DataError(f"{root}: there are no such detections", hint="--detections FOLDER|FILE")
    if len(videos) == 1 and kind == "mot":
        return {videos[0].name: root}
    found = read_detections(root, kind)
    if len(videos) == 1 and len(found) == 1:
        return {videos[0].name: next(iter(found.values()))}
    if set(found) == {""}:
        raise DataError(
            f"{root}: has the boxes of one video, but there are {len(videos):,} videos",
            hint="--detections FOLDER with a file per video, or --videos FILE",
        )
    return found


def _no_pair(job: BuildJob, videos: list[Video], found: Detections) -> DataError:
    some = ", ".join(video.name for video in videos[:3])
    others = ", ".join(sorted(found)[:3])
    return DataError(
        f"{job.detections}: none of its {len(found):,} files or entries ({others}) has the name of one of the "
        f"{len(videos):,} videos ({some})",
        hint="detections must have the names of their videos, with the ending of their format",
    )


def _build_task(job: BuildJob, number: int, video: Video, detections: Path | Boxes | None, settings: str) -> VideoTask:
    boxes_key = _boxes_digest(detections) if isinstance(detections, Boxes) else detections and _signature(detections)
    key = _digest([video.name, number, _signature(video.path), boxes_key, settings, version("lupctl")])
    stem = hashlib.sha256(video.name.encode()).hexdigest()[:24]
    return VideoTask(number, video.name, video.path, detections, job.folder / f"part-{stem}", key)


def _settings_digest(job: BuildJob) -> str:
    weights = job.cutting.weights
    return _digest([job.cutting.facts, _signature(weights) if weights else None])


def _boxes_digest(boxes: Boxes) -> str:
    digest = hashlib.sha256()
    for column in (boxes.frame, boxes.index, boxes.box, boxes.score, boxes.person, boxes.keypoints):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _signature(path: Path) -> list[object]:
    """Size and time of a file, or of every picture in a folder, to notice changes."""
    if not path.is_dir():
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    return [[entry.name, *_signature(entry)] for entry in sorted(path.iterdir()) if entry.is_file()]


def _digest(content: object) -> str:
    encoded = json.dumps(content, sort_keys=True, ensure_ascii=True).encode()
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def existing_pack(out: Path) -> Path:
    """The pack at `out`: the file, or the folder of shards with that name if there is no file."""
    folder = out.with_suffix("")
    return folder if not out.exists() and any(folder.glob("*.h5")) else out


def _state_of(path: Path, digest: str) -> State:
    if not path.exists():
        return "absent"
    try:
        return "current" if read_pack_record(path).get("digest") == digest else "changed"
    except FormatError:
        return "changed"
