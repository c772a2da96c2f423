"""Removing packs and raw data from a workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lupctl.core.choices import nearest_name
from lupctl.core.data.catalog.datasets import known_datasets
from lupctl.core.data.catalog.links import dataset_links
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.lock import old_folder, part_folder, writing
from lupctl.core.formats.pack.verdict import note_path
from lupctl.core.system.disk.lock import held
from lupctl.core.system.disk.removal import count_bytes, remove_aside, remove_leftovers
from lupctl.core.workspace import Workspace

Kind = Literal["pack", "raw"]
DOWNLOADING = Path(".lupctl-part") / "lock"


@dataclass(frozen=True)
class Removal:
    """One thing that goes.

    Args:
        dataset: what it is of.
        kind: pack or raw.
        path: the pack, or the folder or link of the raw data.
        bytes: that it takes; those of a link alone.
        is_link: a link is removed, and what it names stays.
        also: other datasets that are read from the same raw data.
    """

    dataset: str
    kind: Kind
    path: Path
    bytes: int
    is_link: bool
    also: tuple[str, ...] = ()


def plan_removal(space: Workspace, names: Sequence[str], kinds: Sequence[Kind]) -> list[Removal]:
    """What goes, each thing once.

    Args:
        space: the workspace; nothing outside it is removed.
        names: of datasets.
        kinds: pack, raw or both; one of them has to be there for each name.

    Raises:
        DataError: a dataset has none of it here.
    """
    found: dict[Path, Removal] = {}
    for name in dict.fromkeys(names):
        there = [one for kind in kinds if (one := _find(space, name, kind)) is not None]
        if not there:
            raise _missing(space, name, kinds)
        for one in there:
            found.setdefault(one.path, one)
    return list(found.values())


def remove_data(removal: Removal) -> None:
    """Removes one of them: aside first, then for good; links in it are removed and not followed.

    Raises:
        DataError: another process is writing it, or the disk refuses.
    """
    path = removal.path
    remove_leftovers(path.parent)
    if removal.kind == "pack":
        with writing(path):
            # The verdict after the pack: without it a pack is only unverified.
            remove_aside([path, part_folder(path), old_folder(path)], path.stem)
            note_path(path).unlink(missing_ok=True)
        return
    lock = path / DOWNLOADING
    if removal.is_link or not lock.is_file():
        remove_aside([path], path.name)
        return
    with held(lock) as is_free:
        if not is_free:
            raise DataError(f"{path}: another lupctl is downloading into it", hint="stop it with Ctrl-C, or wait")
    remove_aside([path], path.name)


def _find(space: Workspace, name: str, kind: Kind) -> Removal | None:
    if kind == "pack":
        if not _is_inside(space, name):
            return None
        path = _pack_path(space, name)
        parts = [part for part in (path, part_folder(path), old_folder(path)) if _is_there(part)]
        if not parts:
            return None
        size = sum(map(count_bytes, parts))
        return Removal(path.stem, "pack", path, size, path.is_symlink())
    folder = _raw_folder(space, name)
    if folder is None:
        return None
    also = tuple(other for other in known_datasets() if other != name and dataset_links(other).folder == folder.name)
    return Removal(name, "raw", folder, count_bytes(folder), folder.is_symlink(), also)


def _pack_path(space: Workspace, name: str) -> Path:
    """The pack of a name, or that of a path into the workspace's packs."""
    path = Path(name)
    if len(path.parts) > 1 and path.parent.resolve() == space.packs.resolve():
        return path
    return space.pack_path(path.name.removesuffix(".h5"))


def _is_inside(space: Workspace, name: str) -> bool:
    """Whether a name, or a path, is of something directly in the workspace's packs."""
    path = Path(name)
    return path.name == name not in ("", ".", "..") or path.parent.resolve() == space.packs.resolve()


def _raw_folder(space: Workspace, name: str) -> Path | None:
    """The raw data of a dataset, under its own name or that of its folder."""
    known = [dataset_links(name).folder] if name in known_datasets() else []
    for folder in (name, *known):
        if folder and Path(folder).name == folder and folder not in (".", "..") and _is_there(space.raw / folder):
            return space.raw / folder
    return None


def _missing(space: Workspace, name: str, kinds: Sequence[Kind]) -> DataError:
    other = next((kind for kind in ("pack", "raw") if kind not in kinds and _find(space, name, kind)), None)
    what = " or ".join({"pack": "pack", "raw": "raw data"}[kind] for kind in kinds)
    if other == "raw":
        return DataError(f"{name}: no {what} here, only raw data", hint=f"lupctl data rm {name} --raw")
    if other == "pack":
        return DataError(f"{name}: no {what} here, only a pack", hint=f"lupctl data rm {name}")
    raw = [path.name for path in space.raw.iterdir()] if space.raw.is_dir() else []
    guess = nearest_name(name, {*raw, *(pack.stem for pack in space.pack_paths())})
    hint = f"lupctl data rm {guess}" if guess else "lupctl data list shows what is here"
    return DataError(f"{name}: no {what} in {space.home}", hint=hint)


def _is_there(path: Path) -> bool:
    """Whether there is something, or a link to nothing."""
    return path.is_symlink() or path.exists()
