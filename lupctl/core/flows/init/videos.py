"""Videos that persons are still to be cut from, and the boxes beside them."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import DetectionFormat
from lupctl.core.flows.init.counting import count_samples, hold_out, pick_labels
from lupctl.core.flows.init.model import Seen
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.video.boxes import Boxes
    from lupctl.core.formats.pack.samples import Samples

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


def look_at_videos(space: Workspace, root: Path, *, dataset: str) -> Seen:
    """The videos of a path and the boxes that belong to them.

    Raises:
        DataError: the videos cannot be listed or opened, or the boxes cannot be read.
    """
    from lupctl.core.data.video.listing import find_videos

    videos = find_videos(root)
    what = f"{len(videos):,} video{'s' if len(videos) != 1 else ''}"
    words: tuple[str, ...] = ("data", "build", dataset, "--videos", str(root))
    frame_s, frames = _time_frames(videos[0].path)
    boxes_at, kind = _find_boxes(root)
    if boxes_at is None or kind is None:
        words += ("--detector", "fasterrcnn-mobile", "--every", "5")
        return Seen("videos", dataset, words, f"{root}: {what} without detections", missing=(NO_BOXES,))
    boxes = _read_boxes(boxes_at, kind)
    total, persons = sum(map(len, boxes)), len(_persons_of(boxes))
    every = max(1, total // (persons * CROPS_PER_PERSON)) if persons else 1
    samples = _sample_boxes(boxes, every=every)
    words += ("--detections", str(boxes_at), "--format", kind, *(("--every", str(every)) if every > 1 else ()))
    of_whom = f"of {persons:,} persons" if persons else "of persons without a number"
    again = ("data", "pack", str(space.packs / f"{dataset}.h5"), "--name", f"{dataset}-split")
    return Seen(
        kind="videos",
        dataset=dataset,
        packing=words,
        title=f"{root}: {what} with {total:,} boxes {of_whom} ({kind})",
        counts=count_samples(samples),
        labels=pick_labels(samples),
        held_out=hold_out(samples, again, dataset=f"{dataset}-split"),
        read_s=frame_s * frames * len(videos) / max(len(samples), 1),
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


def _persons_of(boxes: "list[Boxes]") -> list[tuple[int, int]]:
    """The persons with a number, each by its video, because a number means another person in another video."""
    import numpy as np

    return [
        (video, number) for video, one in enumerate(boxes) for number in np.unique(one.person).tolist() if number > 0
    ]


def _sample_boxes(boxes: "list[Boxes]", *, every: int) -> "Samples":
    """The crops of every N-th frame, as they will be in the pack: each video is a camera."""
    import numpy as np

    from lupctl.core.choices import JUNK, ROLE_CODES
    from lupctl.core.formats.pack.samples import Samples
    from lupctl.core.system.strings import build_column

    number_of = {person: number for number, person in enumerate(_persons_of(boxes), start=1)}
    rows = [
        (number_of.get((video, person), JUNK), video + 1)
        for video, one in enumerate(boxes)
        for frame, person in zip(one.frame.tolist(), one.person.tolist(), strict=True)
        if frame % every == 0
    ]
    person, camera = np.array(rows, np.int64).reshape(-1, 2).T
    role = np.where(person == JUNK, ROLE_CODES["unlabelled"], ROLE_CODES["train"]).astype(np.uint8)
    names = build_column(f"{number:09d}" for number in range(len(rows)))
    return Samples(person=person, camera=camera.astype(np.int16), role=role, name=names)


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
