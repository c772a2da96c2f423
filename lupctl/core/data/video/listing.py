"""Videos and detections below a folder, and which of them belong together."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from lupctl.core.choices import DetectionFormat
from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
from lupctl.core.errors import DataError
from lupctl.core.system.examples import name_some

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"})
DETECTION_SUFFIXES: dict[DetectionFormat, str] = {
    "luperson": ".pkl", "luperson-nl": ".pkl", "mot": ".txt", "coco": ".json",
}  # fmt: skip
PICTURE_FOLDER = "img1"  # MOTChallenge: SEQUENCE/img1/000001.jpg
MOT_FILES = ("gt/gt.txt", "det/det.txt")
SURROGATES = re.compile("[\ud800-\udfff]")  # how Python gives bytes of a file name that are not UTF-8


@dataclass(frozen=True)
class Video:
    """One video.

    Args:
        name: path without suffix, relative to the root folder; `country/city/id` for LUPerson's file names.
        path: the file, or the folder of pictures.
    """

    name: str
    path: Path


def find_videos(root: Path) -> list[Video]:
    """Video files and folders of pictures, sorted by name.

    A folder that contains pictures and no video file is one video; MOTChallenge's `img1` takes the name of its parent
    folder.

    Raises:
        DataError: there is no video, or a name is not UTF-8.
    """
    if root.is_file():
        return [Video(video_name(PurePath(root.name)), root)]
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder of videos", hint="--videos FOLDER")
    found = []
    for folder, files in _walk(root):
        inside = folder.relative_to(root)
        videos = [name for name in files if PurePath(name).suffix.lower() in VIDEO_SUFFIXES]
        found += [Video(video_name(inside / name), folder / name) for name in videos]
        if not videos and any(PurePath(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            name = folder_name(inside) or PurePath(folder_name(root.absolute())).name
            found.append(Video(name, folder))
    if not found:
        endings = " ".join(sorted(VIDEO_SUFFIXES))
        raise DataError(f"{root}: contains no video ({endings}) and no folder of pictures", hint="--videos FOLDER")
    _check_names(root, found)
    return sorted(found, key=lambda video: (f"{video.name}/", str(video.path)))


def find_detections(root: Path, kind: DetectionFormat) -> dict[str, Path]:
    """Files of detections below a folder, by the name of the video they belong to.

    Of MOTChallenge's `SEQUENCE/gt/gt.txt` and `SEQUENCE/det/det.txt` the first kind that occurs is used, and no other
    text file; if there is neither, each `NAME.txt`.

    Raises:
        DataError: there is none, or two belong to one video.
    """
    suffix = DETECTION_SUFFIXES[kind]
    paths = [folder / name for folder, files in _walk(root) for name in files if name.lower().endswith(suffix)]
    if kind == "mot":
        for known in MOT_FILES:
            sequences = [path for path in paths if path.as_posix().endswith(f"/{known}")]
            if sequences:
                return {folder_name(path.parent.parent.relative_to(root)) or root.name: path for path in sequences}
    if not paths:
        raise DataError(f"{root}: contains no *{suffix}, which --format {kind} reads", hint="--detections FOLDER|FILE")
    found: dict[str, Path] = {}
    for path in paths:
        name = video_name(path.relative_to(root))
        if name in found:
            raise DataError(f"{path} and {found[name]} both belong to video {name}", hint="remove one of them")
        found[name] = path
    return found


def match_names(videos: Iterable[str], detections: Iterable[str]) -> dict[str, str]:
    """Which detections belong to which video: those with its name, else those that share only its last part.

    >>> match_names(["cam1/a", "cam2/b"], ["cam1/a", "b", "c"])
    {'cam1/a': 'cam1/a', 'cam2/b': 'b'}
    """
    names, free = list(videos), set(detections)
    pairs = {name: name for name in names if name in free}
    free -= pairs.keys()
    by_last: dict[str, list[str]] = {}
    for name in free:
        by_last.setdefault(PurePosixPath(name).name, []).append(name)
    open_names = [name for name in names if name not in pairs]
    lasts = [PurePosixPath(name).name for name in open_names]
    for name, last in zip(open_names, lasts, strict=True):
        if len(by_last.get(last, ())) == 1 and lasts.count(last) == 1:
            pairs[name] = by_last[last][0]
    return pairs


def video_name(path: PurePath) -> str:
    """A video's name from the path of its file, with `country+city+id` split as in LUPerson's list.

    >>> video_name(PurePosixPath("us/new_york/us+new_york+-0UsgiQiPbY.mp4"))
    'us/new_york/-0UsgiQiPbY'
    >>> video_name(PurePosixPath("hall/door.2.avi"))
    'hall/door.2'
    """
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES | set(DETECTION_SUFFIXES.values()) else path.name
    fields = stem.split("+")
    return "/".join(fields) if len(fields) == 3 and all(fields) else (path.parent / stem).as_posix()


def folder_name(folder: PurePath) -> str:
    """The name of a video that is a folder of pictures; "" for the root folder itself."""
    kept = folder.parent if folder.name == PICTURE_FOLDER else folder
    return "" if kept.as_posix() == "." else kept.as_posix()


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below `root` and their files, sorted, hidden ones left out; links to folders are followed once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        found = Path(folder).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def _check_names(root: Path, videos: list[Video]) -> None:
    bad = [ascii(video.name) for video in videos if SURROGATES.search(video.name)]
    if bad:
        raise DataError(f"{root}: {len(bad):,} names are not UTF-8: {name_some(bad)}", hint="rename these files")
