"""The raw data and packs that a name or a path on the command line stands for."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import get_args

from lupctl.core.choices import SYNTHETIC, Dataset, nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import DOWNLOADED, Workspace

# Datasets that may be together in one folder under raw/.
PARTS = ("cuhk03-labeled", "cuhk03-detected")
# Files that list or contain images; a pack ends in .h5.
RAW_SUFFIXES = (".csv", ".mat", ".mdb", ".lmdb")
NAME_RULE = re.compile(r"[\w][\w.-]*")
# Letters that NFKD would make an a, an o, a u or nothing of.
GERMAN = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}


@dataclass(frozen=True)
class Target:
    """Raw data that a command works on.

    Args:
        dataset: the name of its pack.
        root: the folder, or the file that names the images; None for drawn images.
        out: where its pack is or will be.
        typed: what the user called it; empty if nothing was typed.
    """

    dataset: str
    root: Path | None
    out: Path
    typed: str = ""

    @property
    def words(self) -> str:
        """What to type to name this raw data again."""
        return quote(self.typed or (self.dataset if self.root is None else str(self.root)))


def raw_names(workspace: Workspace) -> list[str]:
    """The datasets under `raw/`, sorted."""
    if not workspace.raw.is_dir():
        return []
    return sorted(path.name for path in workspace.raw.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_targets(workspace: Workspace, names: Sequence[str], *, dataset: str | None = None) -> list[Target]:
    """The raw data of several names or paths; everything under `raw/` if there are no names.

    A folder that contains CUHK03 with labeled and with detected boxes stands for both.

    Args:
        workspace: where to look.
        names: what was typed.
        dataset: name of the pack, if one name is given.

    Raises:
        DataError: there is no raw data of that name, or none at all.
        UsageError: a name that cannot be a file name, or one name for two datasets.
    """
    if not names:
        names = raw_names(workspace)
        if not names:
            there = "is empty" if workspace.raw.is_dir() else "does not exist"
            raise DataError(
                f"no raw data: {workspace.raw} {there}; a folder per dataset was expected",
                hint=f"put images under {workspace.raw / 'NAME'}, or name a folder: lupctl data pack FOLDER",
            )
    return [target for name in names for target in _split_target(workspace, name, dataset)]


def pick_targets(workspace: Workspace, names: Sequence[str], *, name: str | None, out: Path | None) -> list[Target]:
    """As `find_targets`; a single one may get its own name or path.

    Args:
        workspace: where to look.
        names: what was typed.
        name: of its pack, `--name`.
        out: path of its pack, `--out`.

    Raises:
        DataError: there is no raw data of a name, or none at all.
        UsageError: a name or a path for several datasets.
    """
    given = "--name" if name is not None else "--out" if out is not None else None
    if given is not None and len(names) != 1:
        raise UsageError(
            f"{given} goes with one dataset, got {len(names) or 'everything under raw/'}",
            hint="name one dataset or folder",
        )
    targets = find_targets(workspace, names, dataset=name)
    if out is None:
        return targets
    if len(targets) > 1:
        raise UsageError(
            f"--out goes with one dataset, {names[0]} holds {' and '.join(target.dataset for target in targets)}",
            hint=f"name one: lupctl data pack {targets[0].dataset}",
        )
    return [replace(targets[0], out=out)]


def find_packable(workspace: Workspace, progress: Progress) -> list[Target]:
    """Everything under `raw/` that has images; reports the folders whose images are still to be cut from videos.

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
        dataset: name of the pack; by default that of the folder.

    Raises:
        DataError: neither exists.
        UsageError: a name that cannot be a file name.
    """
    root = _find_root(workspace, name)
    if root is None or root == _find_part(workspace, name):
        return _build_target(workspace, name, root, dataset=dataset or name)
    own = root.absolute()
    return _build_target(workspace, name, root, dataset=dataset or (own.stem if own.is_file() else own.name))


def has_raw(workspace: Workspace, name: str) -> bool:
    """Whether the workspace holds raw data under this name, also as a part of a folder."""
    return "/" not in name and ((workspace.raw / name).exists() or _find_part(workspace, name) is not None)


def _find_root(workspace: Workspace, name: str) -> Path | None:
    if "/" not in name and (workspace.raw / name).exists():
        return workspace.raw / name
    part = _find_part(workspace, name)
    if part is not None or name == SYNTHETIC:
        return part
    if Path(name).exists():
        return Path(name)
    near = nearest_name(name, [*raw_names(workspace), *get_args(Dataset)])
    hint = f"did you mean {near}?" if near else f"put its images under {workspace.raw / name}"
    if near == name:
        hint = f"put its images under {workspace.raw / name}"
    if near in DOWNLOADED:
        spelling = "" if near == name else f"did you mean {near}? "
        hint = f"{spelling}lupctl data download {near} gets it or says how; or put its images under " + str(
            workspace.raw / near
        )
    raise DataError(f"no raw data of {name!r}: neither {workspace.raw / name} nor a folder {name} exists", hint=hint)


def _find_part(workspace: Workspace, name: str) -> Path | None:
    """The path of a dataset that is part of a folder under `raw/`, as cuhk03-labeled is of raw/cuhk03-np."""
    if name not in PARTS or (workspace.raw / name).exists():
        return None
    from lupctl.core.data.sources.layouts.cuhk03 import find_parts

    found = [root for raw in raw_names(workspace) for part, root in find_parts(workspace.raw / raw) if part == name]
    return found[0] if found else None


def _split_target(workspace: Workspace, name: str, dataset: str | None) -> list[Target]:
    """The datasets in one folder, nearly always just one."""
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
    return [_build_target(workspace, part, path, dataset=dataset or part) for part, path in parts]


def _build_target(workspace: Workspace, typed: str, root: Path | None, *, dataset: str) -> Target:
    chosen = check_name(dataset, hint=f"lupctl data pack {quote(typed)} --name")
    return Target(chosen, root, workspace.packs / f"{chosen}.h5", typed)


def check_name(name: str, *, hint: str) -> str:
    """The name, if a dataset may have it.

    Args:
        name: as typed, or of a folder.
        hint: what to type in front of a name; a valid one like `name` is added.

    Raises:
        UsageError: it cannot be a file name.
    """
    if not NAME_RULE.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid dataset name: letters, digits, - _ . only", hint=f"{hint} {valid_name(name)}"
        )
    return name


def valid_name(text: str) -> str:
    """A valid dataset name like a text.

    >>> valid_name("Büro West 2"), valid_name("a/b"), valid_name("  ")
    ('buero-west-2', 'a-b', 'mine')
    """
    spelled = text.lower()
    for letter, letters in GERMAN.items():
        spelled = spelled.replace(letter, letters)
    plain = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_") or "mine"
