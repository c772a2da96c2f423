"""The pack, or the images, that a name or a path on the command line stands for."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.datasets import RAW_SUFFIXES, Target, find_targets, has_raw
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

# How many folders of raw data are asked for the time of their last change.
MOST_FOLDERS = 1_000


def pick_pack(space: Workspace, name: str, progress: Progress) -> Path:
    """The pack a user means: the workspace's pack of that name, else a path; raw data stands for its pack.

    Args:
        space: the workspace.
        name: what was typed; with a `/` it is a path.
        progress: reports what was chosen where there was a choice.

    Raises:
        DataError: there is no such pack, or raw data has not been packed.
    """
    path = space.named_pack(name)
    if path is not None:
        _report_choice(path, name, progress, with_images=False)
        _report_change(path, progress)
        return path
    path = space.find_pack(name)
    if not is_raw(path):
        return path
    made = find_made_from(space, path)
    if made is not None:
        progress.say(f"data: {made} (the pack of {path})")
        _report_change(made, progress)
        return made
    what = "a folder of images" if path.is_dir() else "a list of images"
    namesake = space.named_pack(path.resolve().stem if path.is_file() else path.resolve().name)
    if namesake is not None:
        root = read_source(namesake).get("root", "elsewhere")
        raise DataError(
            f"{path}: {what}; a pack was expected, and that of this name, {namesake}, was made from {root}",
            hint=f"name the pack: {namesake.stem}; or pack these: lupctl data pack {quote(name)} --name NEWNAME",
        )
    raise DataError(f"{path}: {what} that is not packed; a pack was expected", hint=f"lupctl data pack {quote(name)}")


def pick_images(space: Workspace, name: str, progress: Progress) -> Path:
    """The pack or the folder of images a user means: the workspace's pack of that name, else a path.

    Args:
        space: the workspace.
        name: what was typed; with a `/` it is a path.
        progress: reports what was chosen where there was a choice, and that a folder has no labels.

    Raises:
        DataError: neither exists.
    """
    path = space.named_pack(name)
    if path is not None:
        _report_choice(path, name, progress, with_images=True)
        _report_change(path, progress)
        return path
    path = space.find_pack(name)
    if path.is_dir() and is_raw(path):
        made = find_made_from(space, path)
        packed = "" if made is None else f"; its pack, with labels, is named {made.stem}"
        progress.say(f"data: the images in {path}, without labels{packed}")
    return path


def find_subjects(space: Workspace, name: str, progress: Progress) -> tuple[list[Path], list[Target]]:
    """The packs and the raw data that a name or a path stands for; `data verify` checks both.

    Args:
        space: the workspace.
        name: what was typed; with a `/` it is a path.
        progress: reports what was chosen where there was a choice.

    Raises:
        DataError: neither exists.
    """
    pack = space.named_pack(name)
    raw = find_targets(space, [name]) if has_raw(space, name) else []
    if pack is None and not raw:
        path = space.find_pack(name)
        return ([], find_targets(space, [name])) if is_raw(path) else ([path], [])
    if pack is not None:
        _report_choice(pack, name, progress, with_images=True)
    return [] if pack is None else [pack], raw


def is_raw(path: Path) -> bool:
    """Whether a path is a folder of images, or a file that lists or contains images, and not a pack."""
    if path.is_dir():
        return not any(path.glob("*.h5"))
    return path.suffix.lower() in RAW_SUFFIXES


def find_made_from(space: Workspace, raw: Path) -> Path | None:
    """The pack of the workspace that was made from a folder or a file; None if there is none."""
    folder = (raw.parent if raw.is_file() else raw).resolve()
    for path in space.pack_paths():
        source = read_source(path)
        root = source.get("root") or source.get("database")
        if not isinstance(root, str):
            continue
        made_from = Path(root).resolve()
        # The published archives contain a folder, which then is the root.
        is_same = made_from == folder or (raw.is_dir() and made_from.parent == folder)
        if is_same and (raw.is_dir() or source.get("table") == raw.name or made_from == raw.resolve()):
            return path
    return None


def read_source(pack: Path) -> dict[str, Any]:
    """Where a pack's images come from, as its record says; empty if it cannot be read."""
    from lupctl.core.formats.pack.read import read_pack_record

    try:
        source = read_pack_record(pack).get("source", {})
    except DataError:
        return {}
    return source if isinstance(source, dict) else {}


def report_raw(space: Workspace, name: str, progress: Progress) -> None:
    """Reports that `data pack` takes a name for raw data of the workspace where a folder or file here has it, too."""
    if has_raw(space, name) and (space.raw / name).exists():
        _report_choice(space.raw / name, name, progress, with_images=True)


def _report_choice(taken: Path, name: str, progress: Progress, *, with_images: bool) -> None:
    """Reports what was taken for a name where a file or folder here has it, too, and could have been meant."""
    other = Path(name)
    if not other.exists() or other.resolve() == taken.resolve() or (is_raw(other) and not with_images):
        return
    what = "folder" if other.is_dir() else "file"
    progress.say(f"data: {taken} and not the {what} {name} here, which is ./{name}")


def _report_change(pack: Path, progress: Progress) -> None:
    """Reports that folders of a pack's raw data are newer than the pack; no file is looked at."""
    source = read_source(pack)
    root = source.get("root")
    if source.get("layout") == "csv" or not isinstance(root, str) or not Path(root).is_dir():
        return
    files = sorted(pack.glob("*.h5")) if pack.is_dir() else [pack]
    packed_at = max((file.stat().st_mtime_ns for file in files), default=0)
    if any(changed_at > packed_at for changed_at in _folder_times(Path(root))):
        progress.say(
            f"data: folders of {root} are newer than {pack}; lupctl data pack {quote(root)} says whether it changed"
        )


def _folder_times(root: Path) -> Iterator[int]:
    yield root.stat().st_mtime_ns
    try:
        with os.scandir(root) as entries:
            for entry in islice(entries, MOST_FOLDERS):
                if entry.is_dir():
                    yield entry.stat().st_mtime_ns
    except OSError:
        return
