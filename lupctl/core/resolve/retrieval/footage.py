"""The footage of `lupctl find --in`: a pack, videos, or a folder of images; and where what is made of it is kept."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lupctl.core.choices import nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.data.building import CropOptions
from lupctl.core.resolve.data.packs import pick_images
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

FOLDER = "footage"
# Boxes that are next to a video, in the order in which they are looked for.
NEXT_TO_VIDEO = ("gt/gt.txt", "det/det.txt")
KEY_LENGTH = 8

FootageKind = Literal["pack", "videos", "images"]


@dataclass(frozen=True)
class Footage:
    """Where a person is looked for.

    Args:
        kind: images of a pack, videos whose persons have to be cut out, or a folder of crops.
        path: the pack, the video, or the folder.
        name: short, for the names of files.
        folder: where crops and features of it are kept.
    """

    kind: FootageKind
    path: Path
    name: str
    folder: Path

    @property
    def title(self) -> str:
        """What a page calls it."""
        return self.path.stem if self.kind == "pack" else self.path.name

    @property
    def crops(self) -> Path:
        """The pack of the crops that are cut from videos."""
        return self.folder / "crops.h5"


def find_footage(space: Workspace, named: str, options: CropOptions, progress: Progress) -> Footage:
    """What `--in` means: a pack of the workspace by its name, else a file or a folder.

    A folder of pictures alone is one of crops, and with boxes or a detector the frames of a video.

    Args:
        space: the workspace.
        named: what the user typed.
        options: where boxes come from.
        progress: says which is meant, where a pack and a file have one name.

    Raises:
        DataError: there is nothing of that name.
        UsageError: it is a single image.
    """
    path = Path(named) if space.named_pack(named) is None else pick_images(space, named, progress)
    if not path.exists():
        packs = [pack.stem for pack in space.pack_paths()]
        guess = nearest_name(named, packs)
        hint = f"did you mean {guess}?" if guess else "lupctl data list"
        there = ", ".join(packs) or "no packs"
        raise DataError(
            f"--in {named}: neither a video, nor a folder, nor a pack ({space.packs} holds {there})",
            hint=f"lupctl data pack {named}" if (space.raw / named).exists() else hint,
        )
    kind = _kind_of(path, has_boxes=options.detections is not None or options.detector is not None)
    name = _short_name(path.resolve().stem) or "footage"
    key = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:KEY_LENGTH]
    return Footage(kind, path, name, space.home / FOLDER / f"{name}-{key}")


def refuse_without_videos(
    footage: Footage, options: CropOptions, *, every: int | None, track: bool | None, fps: float | None
) -> None:
    """Refuses options for cutting persons out of videos where there are no videos.

    Raises:
        UsageError: one of them is given.
    """
    if footage.kind == "videos":
        return
    given: dict[str, object] = {
        "--detections": options.detections, "--format": options.format, "--detector": options.detector,
        "--detector-weights": options.weights, "--first-frame": options.first_frame, "--every": every,
    }  # fmt: skip
    if footage.kind == "images":
        given |= {"--track" if track else "--no-track": track, "--fps": fps}
    for option, value in given.items():
        if value is not None:
            what = "a pack, whose persons are cut out already" if footage.kind == "pack" else "a folder of images"
            raise UsageError(f"{option} is for videos, and {footage.path} is {what}", hint=f"leave out {option}")


def _kind_of(path: Path, *, has_boxes: bool) -> FootageKind:
    from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
    from lupctl.core.data.video.listing import VIDEO_SUFFIXES

    suffix = path.suffix.lower()
    if path.is_file():
        if suffix == ".h5":
            return "pack"
        if suffix in IMAGE_SUFFIXES:
            raise UsageError(
                f"--in {path}: an image; a video, a pack or a folder was expected", hint=f"--in {path.parent}"
            )
        return "videos"
    if any(path.glob("*.h5")):
        return "pack"
    if has_boxes or any(one.suffix.lower() in VIDEO_SUFFIXES for one in path.rglob("*")):
        return "videos"
    return "images"


def find_boxes(footage: Footage, options: CropOptions, progress: Progress) -> CropOptions:
    """The options with the boxes of a video: as given, else those next to it; reports these.

    Raises:
        DataError: none are given and none are there.
    """
    from lupctl.core.data.video.listing import find_videos

    if options.detections is not None or options.detector is not None:
        return options
    root = footage.path if footage.path.is_dir() else footage.path.parent
    own = [footage.path.with_suffix(suffix) for suffix in (".txt", ".json")] if footage.path.is_file() else []
    for path in [*own, *(root / name for name in NEXT_TO_VIDEO)]:
        if path.is_file():
            progress.say(f"detections: {path} (next to the video)")
            return replace(options, detections=path)
    if footage.path.is_dir() and any(video.path.with_suffix(".txt").is_file() for video in find_videos(root)):
        progress.say(f"detections: the text files next to the videos in {root}")
        return replace(options, detections=root, format="mot")
    raise DataError(
        f"{footage.path}: nothing says where persons are in it: no --detections, no --detector, and no "
        f"{footage.path.stem}.txt or gt/gt.txt next to it",
        hint="add --detector fasterrcnn",
    )


def page_path(space: Workspace, footage: Footage, query: Path, out: Path | None) -> Path:
    """Where the page goes: `out`, a file or an existing folder; else next to the crops of the footage."""
    name = f"{_short_name(query.stem) or 'person'}-in-{footage.name}.html"
    if out is None:
        return footage.folder / name
    return out / name if out.is_dir() else out


def _short_name(stem: str) -> str:
    """A name that every file system takes, and that may name a dataset."""
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")


def parse_time(option: str, text: str | None) -> float | None:
    """Seconds from `90`, `1:30` or `0:01:30`.

    Raises:
        UsageError: not a time.
    """
    if text is None:
        return None
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(not 0 <= number < 1e6 for number in numbers):
        raise UsageError(
            f"{option} {text}: a time in the video was expected, in seconds or as minutes:seconds",
            hint=f"{option} 1:30",
        )
    seconds = 0.0
    for number in numbers:
        seconds = 60 * seconds + number
    return seconds
