"""Videos that persons are still to be cut from, and the boxes beside them."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import DetectionFormat
from lupctl.core.flows.init.model import Counts, Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lupctl.core.data.video.boxes import Boxes

MOST_FOLDERS = 200
# Frames that are decoded to see how long one takes.
TIMED_FRAMES = 20
# Neighbouring frames show nearly the same: more crops of a person cost time and teach little.
CROPS_PER_PERSON = 50
DETECTION_FOLDERS = ("detections", "dets")
NO_BOXES = (
    "no detections (boxes of the persons in each frame): a network finds them, for which --detector fetches "
    "torchvision's weights once; boxes of your own go in with --detections FILE --format mot|coco"
)
NO_SCORES = (
    "scores: nobody is known to be in two cameras, so nothing is tested; the network learns to tell these persons "
    "apart, and finds one of them again"
)


def holds_videos(root: Path) -> bool:
    """Whether a path is a video, or a folder with videos or a MOTChallenge sequence, and no images of persons."""
    from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
    from lupctl.core.data.video.listing import MOT_FILES, PICTURE_FOLDER, VIDEO_SUFFIXES

    if root.is_file():
        return root.suffix.lower() in VIDEO_SUFFIXES
    found = False
    for number, (folder, folders, files) in enumerate(os.walk(root, followlinks=True)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        suffixes = {Path(name).suffix.lower() for name in files if not name.startswith(".")}
        here = Path(folder)
        if suffixes & VIDEO_SUFFIXES or any((here / name).is_file() for name in MOT_FILES):
            found = True
        elif suffixes & IMAGE_SUFFIXES and here.name != PICTURE_FOLDER:
            return False
        if number >= MOST_FOLDERS:
            break
    return found


def look_at_videos(root: Path, given: str, *, dataset: str) -> Seen:
    """The videos of a path and the boxes that belong to them.

    Raises:
        DataError: the videos cannot be listed or opened, or the boxes cannot be read.
    """
    from lupctl.core.data.video.listing import find_videos

    videos = find_videos(root)
    what = f"{len(videos):,} video{'s' if len(videos) != 1 else ''}"
    words: tuple[str, ...] = ("data", "build", dataset, "--videos", given)
    frame_s, frames = _time_frames(videos[0].path)
    boxes_at, kind = _find_boxes(root)
    if boxes_at is None or kind is None:
        words += ("--detector", "fasterrcnn-mobile", "--every", "5")
        return Seen("videos", dataset, words, f"{given}: {what} without detections", missing=(NO_BOXES, NO_SCORES))
    boxes = _read_boxes(boxes_at, kind)
    counts, labels = _count_boxes(boxes, cameras=len(videos))
    every = counts.images // (counts.persons * CROPS_PER_PERSON) if counts.persons else 1
    title = f"{given}: {what} with {counts.images:,} boxes"
    title += f" of {counts.persons:,} persons" if counts.persons else " of persons without a number"
    if every > 1:
        labels = labels[::every]
        counts = replace(
            counts, images=counts.images // every, train=len(labels), unlabelled=counts.unlabelled // every
        )
        words += ("--every", str(every))
    return Seen(
        kind="videos",
        dataset=dataset,
        packing=(*words, "--detections", str(boxes_at), "--format", kind),
        title=f"{title} ({kind})",
        counts=counts,
        labels=labels,
        read_s=frame_s * frames * len(videos) / max(counts.images, 1),
        missing=(NO_SCORES,),
    )


def _find_boxes(root: Path) -> "tuple[Path | None, DetectionFormat | None]":
    """The detections beside some videos, and their format where it can be told."""
    from lupctl.core.data.video.listing import MOT_FILES

    if root.is_file():
        beside = [root.with_suffix(suffix) for suffix in (".txt", ".json")]
        found = next((path for path in beside if path.is_file()), None)
        return found, None if found is None else ("mot" if found.suffix == ".txt" else "coco")
    for name in MOT_FILES:
        if (root / name).is_file():
            return root / name, "mot"
        if any(root.glob(f"*/{name}")):
            return root, "mot"
    for folder in (*(root / name for name in DETECTION_FOLDERS), root):
        tables = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if len(tables) == 1:
            return tables[0], "coco"
    return None, None


def _read_boxes(path: Path, kind: DetectionFormat) -> "list[Boxes]":
    """The boxes of each video."""
    from lupctl.core.data.video.detections import read_detections
    from lupctl.core.data.video.listing import find_detections

    files = sorted(find_detections(path, kind).values()) if path.is_dir() else [path]
    return [boxes for file in files for boxes in read_detections(file, kind).values()]


def _count_boxes(boxes: "list[Boxes]", *, cameras: int) -> "tuple[Counts, NDArray[np.int64]]":
    """Counts of the crops, and the person of each that has one; a number means another person in each video."""
    import numpy as np

    numbered = [(video, person) for video, one in enumerate(boxes) for person in one.person.tolist() if person > 0]
    _, labels = np.unique(np.array(numbered).reshape(-1, 2), axis=0, return_inverse=True)
    images, persons = sum(map(len, boxes)), len(set(numbered))
    counts = Counts(
        images=images,
        unlabelled=images - len(labels),
        train=len(labels),
        queries=0,
        gallery=0,
        persons=persons,
        train_persons=persons,
        cameras=cameras,
    )
    return counts, labels.reshape(-1).astype(np.int64)


def _time_frames(path: Path) -> tuple[float, int]:
    """Seconds that a frame takes to decode, and how many frames there are said to be."""
    from lupctl.core.data.video.frames import open_frames

    frames = open_frames(path)
    started_at, count = time.perf_counter(), 0
    for _ in frames.pictures(range(TIMED_FRAMES)):
        count += 1
    spent = time.perf_counter() - started_at
    promised = frames.promised
    frames.close()
    return spent / max(count, 1), promised
