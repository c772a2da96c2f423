"""From a fetched file to raw data in its place, in steps that survive a kill at any point.

Each download has a slot, a hidden folder inside the dataset's own, so that a rename is enough to finish it. An existing
slot is unfinished work: the file is fetched into it, an archive is unpacked in it, the record is written, and only then
is the content moved into place and the slot removed.
"""

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.system.disk.archives.unpack import unpack
from lupctl.core.system.disk.atomic import disk_errors_named, sync_path
from lupctl.core.system.disk.lock import held

STAGING = ".lupctl-part"
UNPACKED = "unpacked"
UNFINISHED = re.compile(r".*\.(part|part\.json)|total\.json")


def slot_of(folder: Path, name: str) -> Path:
    """The folder in which one download of a dataset is made."""
    return folder / STAGING / name


def open_slots(folder: Path) -> list[str]:
    """Names of the downloads that were started and are not finished."""
    staging = folder / STAGING
    return sorted(entry.name for entry in staging.iterdir() if entry.is_dir()) if staging.is_dir() else []


def staged_file(slot: Path, name: str) -> Path | None:
    """The complete file in a slot; if the server chooses the name, the only complete one."""
    if name:
        return slot / name if (slot / name).is_file() else None
    files = sorted(slot.glob("*")) if slot.is_dir() else []
    return next((path for path in files if path.is_file() and not UNFINISHED.fullmatch(path.name)), None)


@contextmanager
def locked_staging(folder: Path) -> Iterator[None]:
    """Keep a second process from downloading into the same folder; remove the staging folder once it is empty.

    Raises:
        DataError: another process is downloading, or the disk refuses the write.
    """
    staging = folder / STAGING
    is_new = not folder.is_dir()
    with ExitStack() as stack:
        with disk_errors_named(staging):
            staging.mkdir(parents=True, exist_ok=True)
            is_ours = stack.enter_context(held(staging / "lock"))
        if not is_ours:
            raise DataError(f"{folder}: another lupctl is downloading into it", hint="wait for it, or stop it first")
        try:
            yield
        finally:
            if not open_slots(folder):
                with suppress(OSError):
                    shutil.rmtree(staging)
                    if is_new:
                        folder.rmdir()  # fails if anything is in it


def unpack_into_slot(
    archive: Path, slot: Path, folder: Path, *, into: str, force: bool, cancel: threading.Event
) -> None:
    """Unpack an archive into its slot; fails if that would replace something in the dataset's folder.

    Args:
        archive: the file.
        slot: of this archive.
        folder: the dataset's.
        into: see `Download.into`.
        force: replaces what exists.
        cancel: set by another thread to stop.

    Raises:
        DataError: see `unpack`; or something with the same name exists and `force` is not set.
        StoppedError: `cancel` was set.
    """
    if (slot / UNPACKED).is_dir():
        return  # an earlier call got this far
    fresh = slot / "unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    unpack(archive, fresh, cancel=cancel)
    there = [target for _, target in _moves(fresh, folder, into) if target.exists()]
    if there and not force:
        shutil.rmtree(fresh)
        raise DataError(f"{archive}: {there[0]} already exists and would be replaced", hint="remove it, or add --force")
    fresh.rename(slot / UNPACKED)
    sync_path(slot)


def move_unpacked(slot: Path, folder: Path, *, into: str) -> None:
    """Move an archive's content into place; called again after a kill, it moves the rest."""
    for source, target in _moves(slot / UNPACKED, folder, into):
        _make_room(target)
        source.replace(target)
    sync_path(folder)


def move_file(path: Path, target: Path) -> None:
    """Move one file into place."""
    _make_room(target)
    path.replace(target)
    sync_path(target.parent)


def _make_room(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)


def _moves(unpacked: Path, folder: Path, into: str) -> list[tuple[Path, Path]]:
    if not unpacked.is_dir():
        return []
    entries = sorted(unpacked.iterdir())
    if not into:
        return [(entry, folder / entry.name) for entry in entries]
    only = entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked
    return [(only, folder / into)]
