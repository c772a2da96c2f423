"""Every dataset that lupctl knows or that is in a workspace, and its state there."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lupctl.core.choices import Role
from lupctl.core.data.catalog.datasets import CatalogEntry, catalog_entry, known_datasets
from lupctl.core.data.catalog.links import KnownArchive, Links, dataset_links, has_signs
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.shards import HINT, PACK_FORMAT
from lupctl.core.formats.pack.verdict import read_verdict
from lupctl.core.formats.record import open_recorded
from lupctl.core.workspace import Workspace

State = Literal["absent", "begun", "raw", "unrecognised", "packed", "damaged pack", "verified", "failed verification"]
# Half a second; LUPerson's four million files would take a minute.
MOST_MEASURED = 100_000
UNFINISHED = ".lupctl-part"  # what an unfinished download leaves in a dataset's folder


@dataclass(frozen=True)
class DatasetState:
    """One line of the list.

    Args:
        name: what a user types.
        title: what papers call it; empty for the user's own datasets.
        images: published number of images per role.
        persons: published number of persons per role.
        cameras: published number of cameras.
        remarks: what the published numbers are based on.
        terms: of use; empty if lupctl does not know them.
        published: where it is described.
        get: how to get it: `download`, `by hand`, `drawn`, `withdrawn`, or `own`.
        mirrors: other locations, each with how reliable it is.
        archives: known checksums.
        state: what exists, one word for each thing.
        raw: folder for the raw data, whether it exists or not.
        pack: the pack; None if there is none.
        packed_images: number of images in it.
        raw_bytes: size of the raw data; None where there is none, or too many files to measure.
        pack_bytes: size of the pack.
        changed_at: when the pack, else the folder of the raw data, was last changed; seconds since 1970.
    """

    name: str
    title: str
    images: dict[Role, int]
    persons: dict[Role, int]
    cameras: int | None
    remarks: str
    terms: str
    published: str
    get: Literal["download", "by hand", "drawn", "withdrawn", "own"]
    mirrors: list[str]
    archives: list[KnownArchive]
    state: list[State]
    raw: Path | None
    pack: Path | None = None
    packed_images: int | None = None
    raw_bytes: int | None = None
    pack_bytes: int | None = None
    changed_at: float | None = None


def list_datasets(workspace: Workspace) -> list[DatasetState]:
    """The catalogue in order, then what else is in `raw/` and `packs/`; examines names, opens no image.

    A pack counts as verified if `data verify` found no error in exactly the files that are there now.
    """
    known = [_known_state(workspace, catalog_entry(name)) for name in known_datasets()]
    known_folders = {state.raw for state in known}
    names = {state.name for state in known}
    own = {
        path.name
        for path in (workspace.raw.iterdir() if workspace.raw.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".") and path not in known_folders
    }
    own |= {path.stem if path.suffix == ".h5" else path.name for path in workspace.pack_paths()}
    return [_measured(state) for state in [*known, *(_own_state(workspace, name) for name in sorted(own - names))]]


def _measured(state: DatasetState) -> DatasetState:
    """The same with its sizes and its time of change."""
    raw = state.raw if state.raw is not None and state.raw.is_dir() else None
    newest = state.pack or (raw if "raw" in state.state else None)
    return replace(
        state,
        raw_bytes=None if raw is None else folder_bytes(raw),
        pack_bytes=None if state.pack is None else folder_bytes(state.pack),
        changed_at=None if newest is None else newest.stat().st_mtime,
    )


def folder_bytes(path: Path, *, most: int = MOST_MEASURED) -> int | None:
    """The size of a file, or of all files below a folder, links followed; None if there are more than `most`."""
    if path.is_file():
        return path.stat().st_size
    total = count = 0
    for folder, _, names in os.walk(path, followlinks=True):
        count += len(names)
        if count > most:
            return None
        for name in names:
            with suppress(OSError):  # a link that leads nowhere
                total += os.stat(f"{folder}/{name}").st_size  # noqa: PTH116, a Path for each file takes longer
    return total


def _known_state(workspace: Workspace, entry: CatalogEntry) -> DatasetState:
    links = dataset_links(entry.name)
    # A folder with the dataset's own name counts as well: users who place the data by hand may choose it.
    folder = workspace.raw / links.folder if links.folder else None
    if not (folder is not None and folder.exists()) and (workspace.raw / entry.name).is_dir():
        folder = workspace.raw / entry.name
    pack, packed_images, packed = _pack_state(workspace, entry.name)
    get: Literal["download", "by hand", "drawn", "withdrawn"] = "download" if links.downloads else "by hand"
    if links.refused:
        get = "drawn" if entry.layout == "drawn" else "withdrawn"
    return DatasetState(
        name=entry.name,
        title=entry.title,
        images=dict(entry.images),
        persons=dict(entry.persons),
        cameras=entry.cameras,
        remarks=links.remarks,
        terms=entry.terms,
        published=entry.published,
        get=get,
        mirrors=list(links.mirrors),
        archives=list(links.archives),
        state=[*_raw_state(folder, links), *packed] or ["absent"],
        raw=folder,
        pack=pack,
        packed_images=packed_images,
    )


def _own_state(workspace: Workspace, name: str) -> DatasetState:
    folder = workspace.raw / name
    pack, packed_images, packed = _pack_state(workspace, name)
    return DatasetState(
        name=name, title="", images={}, persons={}, cameras=None, remarks="", terms="", published="", get="own",
        mirrors=[], archives=[], state=[*_raw_state(folder, Links(folder=name)), *packed] or ["absent"],
        raw=folder if folder.is_dir() else None, pack=pack, packed_images=packed_images,
    )  # fmt: skip


def _raw_state(folder: Path | None, links: Links) -> list[State]:
    if folder is None or not folder.is_dir():
        return []
    begun: list[State] = ["begun"] if (folder / UNFINISHED).is_dir() else []
    if has_signs(folder, (*links.images, *links.others)):
        return ["raw", *begun]
    anything = any(not path.name.startswith(".") for path in folder.iterdir())
    if not anything:
        return begun
    return ["unrecognised" if links.images else "raw", *begun]


def _pack_state(workspace: Workspace, name: str) -> tuple[Path | None, int | None, list[State]]:
    path = workspace.pack_path(name)
    shards = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not path.exists() or not shards:
        return None, None, []
    try:
        num_images = sum(_count_images(shard) for shard in shards)
    except DataError:
        return path, None, ["damaged pack"]
    verdict = read_verdict(path)
    if verdict is None:
        return path, num_images, ["packed"]
    return path, num_images, ["packed", "verified" if verdict.sound else "failed verification"]


def _count_images(shard: Path) -> int:
    with open_recorded(shard, "pack", PACK_FORMAT, hint=HINT) as (file, _):
        return int(file["images/crc32"].shape[0])
