"""Links the boxes of one video into tracklets."""

import importlib.util
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lupctl.core.data.video.boxes import UNKNOWN_PERSON, Boxes
from lupctl.core.errors import UsageError

USUAL_RATE = 30.0
GAP_S = 2  # the tracker forgets after one second


def check_tracker() -> None:
    """Raises at the start the error that the first video would raise.

    Raises:
        UsageError: the tracker is not installed.
    """
    if importlib.util.find_spec("trackers") is None:
        raise UsageError(
            "--track needs the package trackers, which is not installed", hint="pip install 'lupctl[tracking]'"
        )


def link_tracklets(boxes: Boxes, *, rate: float) -> Boxes:
    """The same boxes with tracklet numbers from 1 as persons; -1 for a box that belongs to none.

    ByteTrack (Zhang et al. 2022, arXiv 2110.06864) as implemented by the package `trackers`, with its
    settings. Boxes without a score count as certain. Frames without boxes are stepped through as well: a person may be
    hidden for a second.

    Args:
        boxes: finite and sorted by frame.
        rate: frames per second of the video; 0 if unknown.
    """
    import supervision
    from trackers import ByteTrackTracker

    if len(boxes) == 0:
        return boxes
    tracker = ByteTrackTracker(frame_rate=rate or USUAL_RATE)
    longest_gap = GAP_S * int(np.ceil(rate or USUAL_RATE))
    score = np.where(np.isnan(boxes.score), 1.0, boxes.score)
    person = np.full(len(boxes), UNKNOWN_PERSON, np.int64)
    numbers, starts = np.unique(boxes.frame, return_index=True)
    ends = np.append(starts[1:], len(boxes))
    last = int(numbers[0])
    for number, start, end in zip(numbers.tolist(), starts, ends, strict=True):
        for _ in range(min(number - last - 1, longest_gap)):
            tracker.update(supervision.Detections.empty())
        last = number
        rows = np.arange(start, end)
        seen = supervision.Detections(xyxy=boxes.box[rows], confidence=score[rows], data={"row": rows})
        linked = tracker.update(seen)
        person[np.asarray(linked.data["row"])] = np.asarray(linked.tracker_id)
    return replace(boxes, person=_renumber(person))


def _renumber(person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers from 1 without gaps: the package counts from 0, and drops some of its tracklets."""
    known = person >= 0
    renumbered = person.copy()
    renumbered[known] = np.unique(person[known], return_inverse=True)[1] + 1
    return renumbered


def drop_short(boxes: Boxes, *, min_frames: int) -> tuple[Boxes, dict[str, int]]:
    """The boxes of tracklets in at least `min_frames` frames, and how many others were dropped, by reason.

    LUPerson-NL left out persons who were seen in fewer than 200 frames.
    """
    linked = boxes.person != UNKNOWN_PERSON
    numbers, inverse = np.unique(boxes.person, return_inverse=True)
    long = np.bincount(inverse, minlength=len(numbers))[inverse] >= min_frames
    dropped = {"no tracklet": int((~linked).sum()), "short tracklet": int((linked & ~long).sum())}
    return boxes.select(linked & long), {reason: count for reason, count in dropped.items() if count}
