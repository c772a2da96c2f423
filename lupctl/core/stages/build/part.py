"""Cuts the crops of one video into their own file."""

import functools
import json
import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import Detector, Role
from lupctl.core.data.video.boxes import UNKNOWN_PERSON, Boxes, are_inside, round_boxes
from lupctl.core.data.video.crops import Crop, Missed, cut_crops
from lupctl.core.data.video.detections import first_frame_of, read_video_detections
from lupctl.core.data.video.filters import drop_unwanted
from lupctl.core.data.video.frames import Frames, open_frames
from lupctl.core.data.video.stream_check import describe_misfit, outside_share
from lupctl.core.data.video.tracking import drop_short, link_tracklets
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.crops import CropFacts
from lupctl.core.formats.pack.shards import PACK_FORMAT
from lupctl.core.formats.pack.write_shard import PackedImage, ShardWriter
from lupctl.core.formats.record import build_record
from lupctl.core.stages.build.job import Cutting, Outcome, VideoTask
from lupctl.core.system.disk.atomic import disk_errors_named, write_text
from lupctl.core.system.documents import parse_as
from lupctl.core.system.examples import name_some

if TYPE_CHECKING:
    from lupctl.core.data.video.detector import PersonDetector

MOST_PIXELS = 10**6  # a larger coordinate is not a pixel of any video
# After the last box, at most this much of a video is read just to count its frames.
REST_SHARE, REST_FRAMES, SKIPPED_AT_ONCE = 0.2, 1000, 100
HEADER_SLACK = 2  # some headers state a duration, not a number of frames
Stop = Callable[[], None]


def read_outcome(task: VideoTask) -> Outcome | None:
    """The outcome for a video in an earlier run of the same build; None if it has to be processed."""
    try:
        outcome = parse_as(Outcome, task.part.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    return outcome if outcome.key == task.key else None


def build_part(task: VideoTask, cutting: Cutting, *, check_stop: Stop) -> Outcome:
    """Cut the crops of one video and record the outcome; a part is complete or absent.

    Problems with the video or its boxes are part of the outcome, not errors.

    Args:
        task: the video.
        cutting: which crops to cut.
        check_stop: called at each frame; if it raises, no part is left.

    Raises:
        DataError: the disk is full, or the detector's weights are not available.
        DeviceError: the detector's device is not available.
    """
    outcome = Outcome(task.name, task.key)
    if cutting.detector is not None:
        # A problem with the network would affect every video, so it ends the build.
        _load_detector(cutting.detector, cutting.weights, cutting.device)
    with disk_errors_named(task.part):
        try:
            _cut_video(task, cutting, outcome, check_stop)
        except DataError as error:
            outcome.quarantine.append(error.message.removeprefix(f"{task.path}: "))
            outcome.drop("video left out", outcome.boxes - sum(outcome.dropped.values()))
        write_text(task.part.with_suffix(".json"), json.dumps(asdict(outcome), ensure_ascii=True))
    return outcome


def _cut_video(task: VideoTask, cutting: Cutting, outcome: Outcome, check_stop: Stop) -> None:
    boxes = _read_boxes(task, cutting, outcome)
    with closing(open_frames(task.path)) as frames:
        outcome.height, outcome.width = frames.height, frames.width
        if boxes is None:
            boxes = _detect(task, cutting, outcome, check_stop)
        first = _pick_first_frame(boxes, cutting, frames)
        boxes = _drop_malformed(boxes, outcome, first=first)
        _check_fit(boxes, cutting, outcome)
        boxes = _choose(boxes, cutting, outcome, first=first, rate=frames.rate)
        _write_crops(task, boxes, frames, outcome, first=first, check_stop=check_stop)
        outcome.frames = frames.passed


def _read_boxes(task: VideoTask, cutting: Cutting, outcome: Outcome) -> Boxes | None:
    boxes = task.detections
    if isinstance(boxes, Path):
        assert cutting.boxes_from is not None
        boxes = read_video_detections(boxes, cutting.boxes_from, task.name)
    if boxes is not None:
        outcome.boxes = len(boxes) + sum(boxes.left_out.values())
        for reason, count in boxes.left_out.items():
            outcome.drop(reason, count)
    return boxes


def _detect(task: VideoTask, cutting: Cutting, outcome: Outcome, check_stop: Stop) -> Boxes:
    """Persons found by a detector, in a separate pass: the members of a tracklet are known only at its end."""
    from lupctl.core.data.video.detector import detect_boxes

    assert cutting.detector is not None
    detector = _load_detector(cutting.detector, cutting.weights, cutting.device)
    # Tracklets need every frame, whichever are kept.
    every = 1 if cutting.track else cutting.every
    with closing(open_frames(task.path)) as frames:
        boxes = detect_boxes(frames, detector, every=every, check_stop=check_stop)
    outcome.boxes = len(boxes)
    return boxes


@functools.cache
def _load_detector(kind: Detector, weights: Path | None, device: str | None) -> "PersonDetector":
    from lupctl.core.data.video.detector import PersonDetector

    return PersonDetector(kind, weights=weights, device=device)


def _pick_first_frame(boxes: Boxes, cutting: Cutting, frames: Frames) -> int:
    if cutting.first_frame is not None:
        return cutting.first_frame
    if cutting.boxes_from is None:
        return 0
    if not boxes.named_frames:
        return first_frame_of(cutting.boxes_from)
    if frames.first_name is None:
        raise DataError(
            "its boxes are for picture files, but it is a video file",
            hint="add frame_id to the images, or --first-frame",
        )
    return frames.first_name


def _drop_malformed(boxes: Boxes, outcome: Outcome, *, first: int) -> Boxes:
    """The boxes without impossible ones, which are reported by kind with their frames."""
    sane = np.asarray((np.abs(boxes.box) <= MOST_PIXELS).all(axis=1))  # false for NaN as well
    corners = round_boxes(np.where(sane[:, None], boxes.box, 0))
    numbers = np.stack([boxes.frame, boxes.index], axis=1)
    is_first = np.zeros(len(boxes), bool)
    is_first[np.unique(numbers, axis=0, return_index=True)[1]] = True
    kept = np.ones(len(boxes), bool)
    for reason, bad, description in (
        ("not a number", ~sane, "not pixels of a video"),
        ("empty", (corners[:, 2:] <= corners[:, :2]).any(axis=1), "empty or inverted"),
        ("before the first frame", boxes.frame < first, f"in frames before number {first}, which is the first"),
        ("number taken", ~is_first, "with the number of another box in their frame"),
    ):
        found = kept & bad
        if found.any():
            outcome.drop(reason, int(found.sum()))
            outcome.quarantine.append(
                f"{_count(found.sum(), 'box')} {description} ({_name_frames(boxes.frame[found])})"
            )
        kept &= ~bad
    return boxes if kept.all() else boxes.select(kept)


def _check_fit(boxes: Boxes, cutting: Cutting, outcome: Outcome) -> None:
    misfit = describe_misfit(boxes, height=outcome.height, width=outcome.width)
    if outside_share(boxes, height=outcome.height, width=outcome.width) > cutting.max_outside:
        raise DataError(
            f"left out: {misfit or 'boxes extend beyond the frame'}", hint="--max-outside 1 keeps such videos"
        )
    if misfit:
        outcome.warnings.append(misfit)


def _choose(boxes: Boxes, cutting: Cutting, outcome: Outcome, *, first: int, rate: float) -> Boxes:
    if cutting.track:
        boxes, dropped = drop_short(link_tracklets(boxes, rate=rate), min_frames=cutting.min_track)
        for reason, count in dropped.items():
            outcome.drop(reason, count)
    boxes, dropped = drop_unwanted(boxes, cutting.rules)
    for reason, count in dropped.items():
        outcome.drop(reason, count)
    wanted = (boxes.frame - first) % cutting.every == 0
    outcome.drop("other frame", int((~wanted).sum()))
    return boxes if cutting.every == 1 else boxes.select(wanted)


def _write_crops(
    task: VideoTask, boxes: Boxes, frames: Frames, outcome: Outcome, *, first: int, check_stop: Stop
) -> None:
    task.part.parent.mkdir(parents=True, exist_ok=True)
    # The name is unique to this process, so that two jobs on the same video do not write to the same file.
    own_path = task.part.with_name(f"{task.part.name}.{socket.gethostname()}.{os.getpid()}.h5")
    inside = are_inside(boxes.box, height=frames.height, width=frames.width)
    writer = ShardWriter(own_path)
    missed: dict[str, list[int]] = {"outside": [], "unreadable": []}
    done = 0
    try:
        for found in cut_crops(frames, boxes, boxes.frame - first):
            check_stop()
            done += len(found)
            for cut in sorted((cut for cut in found if isinstance(cut, Crop)), key=lambda cut: _crop_name(boxes, cut)):
                writer.add(_pack_crop(task, boxes, cut))
                outcome.crops += 1
                outcome.clipped += not inside[cut.row]
            for other in found:
                if isinstance(other, Missed):
                    missed[other.reason].append(other.row)
        _note_missed(boxes, missed, outcome)
        if done < len(boxes):
            _note_end(boxes.frame[done:], frames, outcome, first=first)
        elif done:
            _count_frames(frames, outcome, check_stop)
        if outcome.crops:
            writer.finish(build_record("pack", PACK_FORMAT, command=(), facts={"dataset": task.name}))
            own_path.replace(task.part.with_suffix(".h5"))
    finally:
        writer.discard()


def _pack_crop(task: VideoTask, boxes: Boxes, cut: Crop) -> PackedImage:
    person = int(boxes.person[cut.row])
    left, top, right, bottom = boxes.box[cut.row].tolist()
    role: Role = "unlabelled" if person == UNKNOWN_PERSON else "train"
    return PackedImage(
        encoded=cut.encoded,
        height=cut.height,
        width=cut.width,
        name=f"{task.name}/{_crop_name(boxes, cut)}",
        person=person,
        role=role,
        crop=CropFacts(int(boxes.frame[cut.row]), task.number, float(boxes.score[cut.row]), (left, top, right, bottom)),
    )


def _crop_name(boxes: Boxes, cut: Crop) -> str:
    return f"{boxes.frame[cut.row]:08d}_{boxes.index[cut.row]:04d}.jpg"


def _note_missed(boxes: Boxes, missed: dict[str, list[int]], outcome: Outcome) -> None:
    if rows := missed["outside"]:
        outcome.drop("outside of the frame", len(rows))
        outcome.quarantine.append(f"{_count(len(rows), 'box')} completely outside ({_name_frames(boxes.frame[rows])})")
    if rows := missed["unreadable"]:
        outcome.drop("unreadable frame", len(rows))
        frames = _name_frames(boxes.frame[rows])
        outcome.quarantine.append(f"{_count(len(rows), 'box')} in frames that cannot be read ({frames})")


def _note_end(beyond: NDArray[np.int64], frames: Frames, outcome: Outcome, *, first: int) -> None:
    """Record boxes in frames after the end of the video."""
    outcome.drop("behind the end", len(beyond))
    end = f"it ends with frame {frames.passed + first - 1}"
    if frames.promised > frames.passed:
        end += f" of the {frames.promised} in its header (cut short?)"
    outcome.quarantine.append(
        f"{_count(len(beyond), 'box')} in frames {beyond[0]} to {beyond[-1]} without a picture: {end}"
    )


def _count_frames(frames: Frames, outcome: Outcome, check_stop: Stop) -> None:
    """Read the rest of the video, if it is short, and compare the number of frames with that in the header.

    A decoder silently skips what is damaged, and every box after the gap then shows a later moment.
    """
    if frames.promised - frames.passed > max(frames.promised * REST_SHARE, REST_FRAMES):
        return
    while frames.skip(SKIPPED_AT_ONCE):
        check_stop()
    if frames.promised - frames.passed > HEADER_SLACK:
        outcome.warnings.append(
            f"{frames.passed:,} of the {frames.promised:,} frames in its header: some are missing or the frame rate "
            "varies, so boxes may show another moment"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}es"


def _name_frames(numbers: NDArray[np.int64]) -> str:
    unique = np.unique(numbers).tolist()
    word = "frame" if len(unique) == 1 else "frames"
    return f"{word} {name_some(unique)}"
