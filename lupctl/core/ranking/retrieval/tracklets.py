"""Crops from videos as tracklets: who was seen in which frames, and how alike a tracklet and a person are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.data.video.boxes import UNKNOWN_PERSON, build_boxes
from lupctl.core.data.video.tracking import link_tracklets
from lupctl.core.formats.pack.crops import CropColumns
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.metrics.vectors import UnitRows

# A person who is not seen for longer than this has left; shorter gaps are a pole, or a missed detection.
GAP_S = 2.0
GAP_FRAMES = 50  # where the frame rate is unknown
IDENTICAL = 1 - 1e-5  # the cosine of two equal images that were computed in different batches


@dataclass(frozen=True)
class Tracklet:
    """The crops of one person in one video, or a single image.

    Args:
        video: name of the video; "" for an image that is from none.
        person: its number in the pack; None for a single image.
        rows: (n) int64, rows of the images, in the order of their frames.
    """

    video: str
    person: int | None
    rows: NDArray[np.int64]


def video_of(name: str) -> str:
    """The video that a crop was cut from, by the crop's name.

    >>> video_of("hall/door/00000012_0003.jpg")
    'hall/door'
    """
    return name.rpartition("/")[0]


def group_tracklets(
    samples: Samples,
    crops: CropColumns | None,
    *,
    kept: NDArray[np.bool_],
    link: Callable[[str], float] | None,
    numbered_too: bool = False,
) -> list[Tracklet]:
    """The tracklets of a pack: crops of one person from one video, sorted by video and first frame.

    An image that is not from a video, and a crop whose person is unknown, is a result by itself.

    Args:
        samples: N images.
        crops: where they were cut; None if they are not from videos.
        kept: (N) which images to use.
        link: gives the frame rate of a video by name; the boxes of videos without any known person are then linked,
            and those that belong to no tracklet left out. None leaves them as they are.
        numbered_too: links the boxes of videos with known persons as well.
    """
    rows = np.flatnonzero(kept)
    if crops is None:
        return [Tracklet("", None, row) for row in rows[:, None]]
    found: list[Tracklet] = []
    rows = rows[np.lexsort((crops.frame[rows], crops.video[rows]))]
    for some in split_rows(rows, crops.video[rows]):
        if crops.video[some[0]] < 0:
            found += [Tracklet("", None, row) for row in some[:, None]]
            continue
        name, persons = video_of(samples.name[int(some[0])]), samples.person[some]
        if link is not None and (numbered_too or (persons == UNKNOWN_PERSON).all()):
            boxes = build_boxes(crops.frame[some], crops.box[some], score=crops.score[some])
            persons = link_tracklets(boxes, rate=link(name)).person
            linked = persons != UNKNOWN_PERSON  # a box in one frame alone is mostly a false one
            some, persons = some[linked], persons[linked]
        found += _group_persons(name, some, persons)
    return found


def split_rows(rows: NDArray[np.int64], keys: NDArray[Any]) -> list[NDArray[np.int64]]:
    """The rows of each key, keys ascending, in the order that they have; one pass, however many keys there are.

    >>> [part.tolist() for part in split_rows(np.array([4, 5, 6]), np.array([7, 3, 7]))]
    [[5], [4, 6]]
    """
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(rows[order], edges) if len(rows) else []


def _group_persons(video: str, rows: NDArray[np.int64], persons: NDArray[np.int64]) -> list[Tracklet]:
    """The tracklets of one video, in the order in which they begin.

    Args:
        video: its name.
        rows: (n) in the order of their frames.
        persons: (n) whom they show.
    """
    found: list[tuple[int, Tracklet]] = []
    for places in split_rows(np.arange(len(rows)), persons):
        person = int(persons[places[0]])
        if person == UNKNOWN_PERSON:
            found += [(int(at), Tracklet(video, None, rows[at : at + 1])) for at in places]
        else:
            found.append((int(places[0]), Tracklet(video, person, rows[places])))
    return [tracklet for _, tracklet in sorted(found, key=lambda one: one[0])]


def similarities(
    person: NDArray[np.float32], features: NDArray[Any], *, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The mean cosine of each image with the pictures of a person, and which images are such a picture themselves.

    It is the product with the mean of the pictures' unit vectors, which is not normalised again: so it stays on the
    scale of a threshold for two images. Brought to length 1, the mean would be nearer to everybody.

    Args:
        person: (n, D) a unit vector for each picture.
        features: (N, D), not necessarily normalised.
        device: where it is computed.

    Returns:
        (N) from -1 to 1; (N) bool.
    """
    units = UnitRows(features, np.arange(len(features)), device=device)
    nearest = units.cosines(torch.from_numpy(person).to(device)).max(dim=0).values
    mean = torch.from_numpy(person.astype(np.float64).mean(axis=0, keepdims=True)).float().to(device)
    cosine: NDArray[np.float32] = units.cosines(mean)[0].cpu().numpy()
    return cosine, (nearest > IDENTICAL).cpu().numpy()


def tracklet_similarity(cosine: NDArray[np.float32], tracklet: Tracklet) -> float:
    """The similarity of a tracklet: the mean over its images.

    >>> tracklet_similarity(np.array([0.5, 0.25, 0.75], np.float32), Tracklet("a", 1, np.array([0, 2])))
    0.625
    """
    return float(cosine[tracklet.rows].astype(np.float64).mean())


def sampled_step(frames: NDArray[np.int64]) -> int:
    """Crops were cut from one frame in so many: the smallest distance of two frames of a video with crops.

    >>> sampled_step(np.array([30, 0, 0, 90]))
    30
    """
    steps = np.diff(np.unique(frames))
    return int(steps.min()) if len(steps) else 1


def seen_spans(frames: Sequence[int], *, rate: float, step: int = 1) -> list[tuple[int, int]]:
    """When somebody was there: runs of frames, first and last of each; gaps of up to two seconds do not end one.

    Args:
        frames: ascending.
        rate: frames per second; 0 if unknown.
        step: crops were cut from one frame in so many; two that are missing are no gap either.

    >>> seen_spans([3, 4, 6, 40, 41], rate=10.0)
    [(3, 6), (40, 41)]
    """
    gap = max(GAP_S * rate if rate else GAP_FRAMES, 3 * step)
    ends = np.flatnonzero(np.diff(frames) > gap)
    starts = [0, *(ends + 1).tolist()]
    return [(int(frames[start]), int(frames[end])) for start, end in zip(starts, [*ends.tolist(), -1], strict=True)]


def spread_rows(rows: NDArray[np.int64], count: int) -> list[int]:
    """Up to `count` of the rows, evenly spaced, the first and the last among them.

    >>> spread_rows(np.arange(10, 20), 4)
    [10, 13, 16, 19]
    """
    if len(rows) <= count:
        return [int(row) for row in rows]
    return [int(rows[round(at)]) for at in np.linspace(0, len(rows) - 1, count)]
