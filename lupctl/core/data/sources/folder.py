"""Image files below a folder, in an order that does not depend on the disk."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.system.strings import StringColumn, StringColumnBuilder, sort_rows

# What OpenCV reads; any other file next to the images (Thumbs.db, readme.txt, .mat) is ignored.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Scan:
    """The image files below a folder.

    Args:
        names: image files as paths relative to the folder, `/` between parts, sorted.
        num_ignored: number of files that are hidden or have no image suffix.
        left_out: what has an image suffix and is no regular file, such as a FIFO or a link to nothing.
    """

    names: StringColumn
    num_ignored: int
    left_out: Sequence[str]


def scan_images(root: Path, *, folders: Sequence[str] = ("",)) -> Scan:
    """Lists the image files below `root`, following links to folders.

    Args:
        root: the folder that names are relative to.
        folders: the subfolders to search; all of `root` by default.

    Raises:
        DataError: there is no such folder or no image in it, or a name is not UTF-8.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", hint=f"put the images under {root}")
    try:
        scan = _walk(root, folders)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be listed ({error.strerror})", hint=f"ls -l {error.filename or root}"
        ) from error
    if not scan.names:
        raise DataError(
            f"{root}: contains no image ({count_things(scan.num_ignored, 'other file')}); expected files ending in "
            f"{' '.join(sorted(IMAGE_SUFFIXES))}",
            hint=f"put the images under {root}",
        )
    return scan


def list_folders(root: Path) -> list[Path]:
    """The folders directly in a folder, sorted; asks the disk about no file, of which there may be millions."""
    with os.scandir(root) as entries:
        return sorted(root / entry.name for entry in entries if entry.is_dir())


def _walk(root: Path, folders: Sequence[str]) -> Scan:
    names = StringColumnBuilder()
    strange: list[str] = []
    special: list[str] = []
    num_ignored = 0
    seen: set[tuple[int, int]] = set()  # folders by device and inode, because links may lead back up
    # The sorted entries of each folder from the root to the current one. A folder is sorted by its name with `/`, as in
    # the names of its images: `a.jpg` < `a/1.jpg` < `a0.jpg`. So the names come out sorted, and only the folders on the
    # current path are in memory.
    walking = [iter(sorted(f"{folder}/" for folder in folders))]
    while walking:
        entry = next(walking[-1], None)
        if entry is None:
            walking.pop()
        elif not entry.endswith("/"):
            names.append(entry)
        elif (folder_id := _folder_id(root, entry)) not in seen:
            seen.add(folder_id)
            listed = _list_folder(root, entry.removeprefix("/"))
            walking.append(listed.inside)
            strange += listed.strange
            special += listed.special
            num_ignored += listed.num_ignored
    if strange:
        raise DataError(
            f"{root}: {len(strange):,} file names are not UTF-8: {name_some(strange)}", hint="rename these files"
        )
    return Scan(names.build(), num_ignored, sorted(special))


def _folder_id(root: Path, folder: str) -> tuple[int, int]:
    found = (root / folder.strip("/")).stat()
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class _Listed:
    """One folder: its images and subfolders (with `/`), sorted, and what else is in it."""

    inside: Iterator[str]
    strange: list[str]
    special: list[str]
    num_ignored: int


def _list_folder(root: Path, folder: str) -> _Listed:
    """What is in a folder.

    Args:
        root: the folder that names are relative to.
        folder: empty, or a path with `/` at its end.
    """
    found = StringColumnBuilder()
    strange: list[str] = []
    special: list[str] = []
    num_ignored = 0
    with os.scandir(root / folder) as entries:
        for entry in entries:
            name = entry.name
            is_folder = not name.startswith(".") and entry.is_dir()
            # A Path would cost twice as much as splitext.
            if not is_folder and (name[0] == "." or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES):  # noqa: PTH122
                num_ignored += 1
            elif not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
                strange.append(ascii(folder + name))  # Python gives bytes that are not UTF-8 as lone surrogates
            elif is_folder or entry.is_file():  # the system has said so already, but of links
                found.append(f"{name}/" if is_folder else name)
            else:
                special.append(folder + name)
    names = found.build()
    return _Listed((folder + name for name in names.take(sort_rows(names))), strange, special, num_ignored)
