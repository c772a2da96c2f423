"""What a dataset's name or a path on the command line stands for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import typer

from lupctl.core.choices import CameraRule, Dataset, Layout, nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.progress import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.sources.records import Source

Choice = TypeVar("Choice")
DRAWN = "synthetic"
NAME_RULE = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Target:
    """Raw data that a command is to work on.

    Args:
        dataset: the name its pack carries.
        root: the folder; None for drawn images.
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
    """

    layout: Layout | None = None
    cameras: CameraRule | None = None
    seed: int = 0


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """Names for the shell: raw data and packs of the workspace, and the datasets lupctl knows."""
    home = context.params.get("home")
    workspace = open_workspace(Path(home) if home else None)
    names = {*raw_names(workspace), *(pack.stem for pack in workspace.pack_paths()), *get_args(Dataset)}
    return sorted(name for name in names if name.startswith(incomplete))


def raw_names(workspace: Workspace) -> list[str]:
    """The datasets under `raw/`, sorted."""
    if not workspace.raw.is_dir():
        return []
    return sorted(path.name for path in workspace.raw.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_targets(workspace: Workspace, names: Sequence[str]) -> list[Target]:
    """The raw data of several names or paths; everything under `raw/` when there is none.

    Raises:
        DataError: there is no raw data of that name, or none at all.
    """
    if names:
        return [find_target(workspace, name) for name in names]
    found = raw_names(workspace)
    if not found:
        there = "is empty" if workspace.raw.is_dir() else "does not exist"
        raise DataError(
            f"no raw data: {workspace.raw} {there}; a folder per dataset was expected",
            hint=f"put images under {workspace.raw / 'NAME'}, or: lupctl data pack FOLDER --layout images --name NAME",
        )
    return [find_target(workspace, name) for name in found]


def find_target(workspace: Workspace, name: str, *, dataset: str | None = None) -> Target:
    """The raw data a user means: a dataset under `raw/`, `synthetic`, or a folder anywhere.

    Args:
        workspace: where to look.
        name: what was typed.
        dataset: the name the pack is to carry; that of the folder by default.

    Raises:
        DataError: neither is there.
        UsageError: a name that cannot be a file's.
    """
    root: Path | None
    if "/" not in name and (workspace.raw / name).exists():
        root = workspace.raw / name
    elif name == DRAWN:
        root = None
    elif Path(name).exists():
        root = Path(name)
    else:
        near = nearest_name(name, [*raw_names(workspace), *get_args(Dataset)])
        raise DataError(
            f"no raw data of {name!r}: neither {workspace.raw / name} nor a folder {name} exists",
            hint=f"did you mean {near}?" if near else f"put its images under {workspace.raw / name}",
        )
    chosen = check_name(dataset or (root.absolute().name if root else name), hint="add --name NAME")
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
    from lupctl.core.sources.build import build_source, build_synthetic, guess_layout
    from lupctl.core.stages.pack import read_packed_source

    if target.root is None:
        return build_synthetic(seed=reading.seed)
    packed = read_packed_source(target.out)
    layout = reading.layout or _one_of(get_args(Layout), packed.get("layout"))
    cameras = reading.cameras or _one_of(get_args(CameraRule), packed.get("cameras")) or "none"
    if layout is None:
        guess = guess_layout(target.root, dataset=target.dataset)
        layout = guess.layout
        progress.say(f"{target.dataset}: layout {layout} ({guess.reason})")
    elif reading.layout is None:
        progress.say(f"{target.dataset}: layout {layout} (as in its pack)")
    source = build_source(layout, target.root, dataset=target.dataset, cameras=cameras)
    ignored = source.facts.get("ignored", 0)
    if ignored:
        progress.say(f"{target.dataset}: {ignored} other files beside the images are ignored")
    return source


def _one_of(choices: tuple[Choice, ...], value: object) -> Choice | None:
    """The choice that a record names, if it names one that this lupctl knows."""
    return next((choice for choice in choices if choice == value), None)
