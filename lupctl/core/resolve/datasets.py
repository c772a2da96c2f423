"""What a dataset's name or a path on the command line stands for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from lupctl.core.choices import CameraRule, Dataset, Layout, Version, nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import DRAWN, Workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source

Choice = TypeVar("Choice")
# Datasets that may lie together in one folder under raw/.
PARTS = ("cuhk03-labeled", "cuhk03-detected")
NAME_RULE = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Target:
    """Raw data that a command is to work on.

    Args:
        dataset: the name its pack carries.
        root: the folder, or the file that names the images; None for drawn images.
        out: where its pack lies or will lie.
    """

    dataset: str
    root: Path | None
    out: Path


@dataclass(frozen=True)
class Reading:
    """How the user wants raw data to be read.

    Args:
        layout: how the files lie; None where it is to be found out.
        cameras: for folders of persons, where the camera's number stands; None where the user did not say.
        seed: for drawn images.
        version: of MSMT17; None where the user did not say.
        with_val: for MSMT17, whether list_val.txt is part of train; None where the user did not say.
        keys: key file of an LMDB; None where the user did not say.
        root: folder that the paths of a table are relative to; None where the user did not say.
    """

    layout: Layout | None = None
    cameras: CameraRule | None = None
    seed: int = 0
    version: Version | None = None
    with_val: bool | None = None
    keys: str | None = None
    root: Path | None = None


def raw_names(workspace: Workspace) -> list[str]:
    """The datasets under `raw/`, sorted."""
    if not workspace.raw.is_dir():
        return []
    return sorted(path.name for path in workspace.raw.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_targets(workspace: Workspace, names: Sequence[str], *, dataset: str | None = None) -> list[Target]:
    """The raw data of several names or paths; everything under `raw/` when there is none.

    A folder that holds CUHK03 with labeled and with detected boxes stands for both.

    Args:
        workspace: where to look.
        names: what was typed.
        dataset: for one name, what its pack is to be called.

    Raises:
        DataError: there is no raw data of that name, or none at all.
        UsageError: a name that cannot be a file's, or one name for two datasets.
    """
    if not names:
        names = raw_names(workspace)
        if not names:
            there = "is empty" if workspace.raw.is_dir() else "does not exist"
            raise DataError(
                f"no raw data: {workspace.raw} {there}; a folder per dataset was expected",
                hint=f"put images under {workspace.raw / 'NAME'}, or: "
                "lupctl data pack FOLDER --layout images --name NAME",
            )
    return [target for name in names for target in _split_target(workspace, name, dataset)]


def find_packable(workspace: Workspace, progress: Progress) -> list[Target]:
    """Everything under `raw/` that has images; says which folders wait for theirs to be cut from videos.

    Raises:
        DataError: there is no raw data.
    """
    from lupctl.core.data.catalog.datasets import find_entry
    from lupctl.core.data.catalog.links import awaits_crops

    packable = []
    for target in find_targets(workspace, []):
        entry = find_entry(target.dataset)
        if entry is not None and target.root is not None and awaits_crops(target.root, entry.name):
            progress.say(f"{target.dataset}: no images yet; cut them with lupctl data build {target.dataset}")
        else:
            packable.append(target)
    return packable


def find_target(workspace: Workspace, name: str, *, dataset: str | None = None) -> Target:
    """The raw data a user means: a dataset under `raw/`, `synthetic`, or a folder or file anywhere.

    Args:
        workspace: where to look.
        name: what was typed.
        dataset: the name the pack is to carry; that of the folder by default.

    Raises:
        DataError: neither is there.
        UsageError: a name that cannot be a file's.
    """
    root = _find_root(workspace, name)
    if root is None or root == _find_part(workspace, name):
        return _build_target(workspace, dataset or name, root)
    own = root.absolute()
    return _build_target(workspace, dataset or (own.stem if own.is_file() else own.name), root)


def has_raw(workspace: Workspace, name: str) -> bool:
    """Whether the workspace holds raw data under this name, perhaps as a part of a folder."""
    return "/" not in name and ((workspace.raw / name).exists() or _find_part(workspace, name) is not None)


def _find_root(workspace: Workspace, name: str) -> Path | None:
    if "/" not in name and (workspace.raw / name).exists():
        return workspace.raw / name
    part = _find_part(workspace, name)
    if part is not None or name == DRAWN:
        return part
    if Path(name).exists():
        return Path(name)
    near = nearest_name(name, [*raw_names(workspace), *get_args(Dataset)])
    hint = f"did you mean {near}?" if near else f"put its images under {workspace.raw / name}"
    if near == name:
        hint = f"lupctl data download {name} says where it comes from; or put its images under {workspace.raw / name}"
    raise DataError(f"no raw data of {name!r}: neither {workspace.raw / name} nor a folder {name} exists", hint=hint)


def _find_part(workspace: Workspace, name: str) -> Path | None:
    """Where a dataset lies that is a part of a folder under `raw/`, as cuhk03-labeled is of raw/cuhk03-np."""
    if name not in PARTS or (workspace.raw / name).exists():
        return None
    from lupctl.core.data.sources.layouts.cuhk03 import find_parts

    found = [root for raw in raw_names(workspace) for part, root in find_parts(workspace.raw / raw) if part == name]
    return found[0] if found else None


def _split_target(workspace: Workspace, name: str, dataset: str | None) -> list[Target]:
    """The datasets that one folder holds, nearly always itself alone."""
    from lupctl.core.data.sources.layouts.cuhk03 import find_parts

    root = _find_root(workspace, name)
    parts = find_parts(root) if root is not None else []
    if not parts:
        return [find_target(workspace, name, dataset=dataset)]
    if dataset is not None and len(parts) > 1:
        raise UsageError(
            f"--name goes with one dataset, {root} holds {' and '.join(part for part, _ in parts)}",
            hint=f"name one: lupctl data pack {parts[0][1]} --name {dataset}",
        )
    return [_build_target(workspace, dataset or part, place) for part, place in parts]


def _build_target(workspace: Workspace, dataset: str, root: Path | None) -> Target:
    chosen = check_name(dataset, hint="add --name NAME")
    return Target(chosen, root, workspace.packs / f"{chosen}.h5")


def check_name(name: str, *, hint: str) -> str:
    """A name that a dataset may have.

    Raises:
        UsageError: it cannot be a file's.
    """
    if not NAME_RULE.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a dataset's name: letters, digits, - _ . only", hint=hint)
    return name


def build_target_source(target: Target, reading: Reading, *, progress: Progress) -> "Source":
    """The images of a target; says which layout was taken when none was named.

    A pack that is there already tells how its raw data was read, so that it stays comparable with it.

    Raises:
        DataError: no such folder, or it is not laid out so.
    """
    from lupctl.core.data.sources.build import build_source, build_synthetic
    from lupctl.core.data.sources.guess import guess_layout
    from lupctl.core.stages.pack import read_packed_source

    if target.root is None:
        return build_synthetic(seed=reading.seed)
    known = _adopt(reading, read_packed_source(target.out))
    layout = known.layout
    if layout is None:
        guess = guess_layout(target.root, dataset=target.dataset)
        layout = guess.layout
        progress.say(f"{target.dataset}: layout {layout} ({guess.reason})")
    elif reading.layout is None:
        progress.say(f"{target.dataset}: layout {layout} (as in its pack)")
    source = build_source(
        layout,
        target.root,
        dataset=target.dataset,
        cameras=known.cameras or "none",
        version=known.version,
        with_val=known.with_val is not False,
        keys=known.keys,
        root=known.root,
    )
    _tell_facts(source, progress)
    return source


def _adopt(reading: Reading, packed: Mapping[str, Any]) -> Reading:
    """How to read raw data: as the user says, else as its pack was made.

    What was found out from the disk when the pack was made is found out again, so that a change is noticed.
    """
    root = packed.get("root")
    is_table = packed.get("layout") in ("csv", "cuhk03-index")
    with_val = packed.get("val")
    return replace(
        reading,
        layout=reading.layout or _one_of(get_args(Layout), packed.get("layout")),
        cameras=reading.cameras or _one_of(get_args(CameraRule), packed.get("cameras")),
        version=reading.version or _one_of(get_args(Version), packed.get("version")),
        with_val=with_val if reading.with_val is None and isinstance(with_val, bool) else reading.with_val,
        keys=reading.keys or (str(packed["keys"]) if "keys" in packed else None),
        root=reading.root or (Path(root) if is_table and isinstance(root, str) and Path(root).is_dir() else None),
    )


def _tell_facts(source: "Source", progress: Progress) -> None:
    """Says what a source found out for itself, and what a user of it has to know."""
    facts = source.facts
    notes = facts.get("notes", [])
    assert isinstance(notes, list)
    for note in notes:
        progress.say(f"{source.dataset}: {note}")
    if facts.get("ignored"):
        progress.say(f"{source.dataset}: {facts['ignored']} other files beside the images are ignored")


def check_notice(source: "Source", *, accepted: bool, progress: Progress) -> None:
    """Says aloud what has to be known of a dataset before its images are used.

    Raises:
        DataError: nobody said `--accept-terms`.
    """
    for dataset, notice in _list_notices(source.dataset, source.facts):
        if not accepted:
            raise DataError(
                f"{dataset}: {notice}; it is packed when that is acknowledged",
                hint="add --accept-terms, or use another dataset",
            )
        progress.warn(f"{dataset}: {notice}")


def _list_notices(dataset: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notices of a source: its own, that of the pack it is, those of the parts it is merged from."""
    own = [(dataset, str(facts["notice"]))] if "notice" in facts else []
    below = [(part["dataset"], part) for part in facts.get("parts", [])]
    below += [(dataset, facts["source"])] if "source" in facts else []
    return own + [found for name, part in below for found in _list_notices(name, part)]


def _one_of(choices: tuple[Choice, ...], value: object) -> Choice | None:
    """The choice that a record names, if it names one that this lupctl knows."""
    return next((choice for choice in choices if choice == value), None)
