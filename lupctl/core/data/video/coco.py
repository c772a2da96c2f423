"""Boxes in COCO-style JSON: ground truth with videos or picture files, or a detector's list of results."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lupctl.core.data.video.boxes import LAST_DIGITS, NUM_KEYPOINTS, UNKNOWN_PERSON, Boxes, build_boxes
from lupctl.core.data.video.listing import folder_name
from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_text

PERSON_NAMES = frozenset({"person", "pedestrian"})
PERSON_CATEGORY = 1
PERSON_KEYS = ("track_id", "instance_id", "person_id")
HINT = "expected {images, annotations, categories}, or a list of {image_id, category_id, bbox, score}"


def read_coco(path: Path) -> dict[str, Boxes]:
    """The boxes of one JSON file, by video; "" if the file names no video.

    An image with `frame_id` is that frame, counted from 0, of the video that its `video_id` names; otherwise its
    `file_name` is a picture `VIDEO/000001.jpg` whose number is the frame number. In a bare list of results `image_id`
    is the frame, from 0. Boxes of categories other than person are left out and counted. The first of `track_id`,
    `instance_id` and `person_id` that is present is the person.

    Raises:
        DataError: it cannot be read.
        FormatError: it is not JSON, or has a different structure.
    """
    try:
        content = json.loads(read_text(path, LIST_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({error})", hint=HINT) from error
    try:
        if isinstance(content, list):
            return _group([("", int(entry["image_id"]), entry) for entry in content], {PERSON_CATEGORY}, named=False)
        frames, named = _list_frames(content)
        rows = [(*frames[entry["image_id"]], entry) for entry in content["annotations"]]
        groups = _group(rows, _person_categories(content), named=named)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise FormatError(f"{path}: unexpected structure ({type(error).__name__}: {error})", hint=HINT) from error
    for video in {video for video, _ in frames.values()} - groups.keys():
        groups[video] = build_boxes([], [], named_frames=named)
    return groups


def _list_frames(content: dict[str, Any]) -> tuple[dict[Any, tuple[str, int]], bool]:
    """Video and frame of each image, and whether the frames are numbers in file names."""
    videos = {entry["id"]: str(entry.get("name") or entry["file_name"]) for entry in content.get("videos", [])}
    named = not all("frame_id" in image for image in content["images"])
    frames = {}
    for image in content["images"]:
        file = PurePosixPath(str(image.get("file_name", "")))
        if named:
            number = LAST_DIGITS.search(file.stem)
            if number is None:
                raise ValueError(f"image {image['id']}: {file} has no number, and there is no frame_id")
            frames[image["id"]] = (folder_name(file.parent), int(number[1]))
        else:
            video = videos[image["video_id"]] if "video_id" in image else folder_name(file.parent)
            frames[image["id"]] = (video, int(image["frame_id"]))
    return frames, named


def _person_categories(content: dict[str, Any]) -> set[int]:
    categories = content.get("categories")
    if not categories:
        return {PERSON_CATEGORY}
    return {entry["id"] for entry in categories if str(entry["name"]).lower() in PERSON_NAMES}


def _group(rows: list[tuple[str, int, dict[str, Any]]], categories: set[int], *, named: bool) -> dict[str, Boxes]:
    by_video: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    left_out: dict[str, int] = {}
    for video, frame, entry in rows:
        kept = by_video.setdefault(video, [])
        if entry.get("category_id", PERSON_CATEGORY) in categories:
            kept.append((frame, entry))
        else:
            left_out[video] = left_out.get(video, 0) + 1
    return {
        video: build_boxes(
            [frame for frame, _ in kept],
            [_corners(entry["bbox"]) for _, entry in kept],
            score=[float(entry.get("score", np.nan)) for _, entry in kept],
            person=[_person_of(entry) for _, entry in kept],
            keypoints=[_keypoint_scores(entry) for _, entry in kept],
            left_out={"other class": left_out[video]} if video in left_out else {},
            named_frames=named,
        )
        for video, kept in by_video.items()
    }


def _corners(box: list[float]) -> list[float]:
    left, top, width, height = (float(value) for value in box)
    return [left, top, left + width, top + height]


def _person_of(entry: dict[str, Any]) -> int:
    return next((int(entry[key]) for key in PERSON_KEYS if entry.get(key) is not None), UNKNOWN_PERSON)


def _keypoint_scores(entry: dict[str, Any]) -> list[float]:
    """Every third value of x, y, score; ground truth has 0, 1 or 2 as its score, where 2 is visible."""
    points = entry.get("keypoints")
    if not points:
        return [float("nan")] * NUM_KEYPOINTS
    if len(points) != 3 * NUM_KEYPOINTS:
        raise ValueError(f"{len(points)} numbers for {NUM_KEYPOINTS} keypoints")
    return [float(value) for value in points[2::3]]
