"""The training runs of a workspace: what each is, how far it is, what it came from, and removing them."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.command_line import read_command
from lupctl.core.system.disk.lock import held
from lupctl.core.system.disk.removal import count_bytes, remove_aside, remove_leftovers
from lupctl.core.system.documents import parse_json, parse_toml
from lupctl.core.training.engine.runs import (
    INPUTS_NAME,
    INPUTS_SHAPE,
    LOCK_NAME,
    RECIPE_SHAPE,
    RunFolder,
    read_last_row,
)
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

RunState = Literal["finished", "running", "stopped", "damaged", "empty"]
# What lupctl writes into a run's folder; with anything else in it, only these are removed.
OWN = re.compile(
    r"recipe\.toml|inputs\.json|run\.json|metrics\.jsonl|resume\.pt|(checkpoint|method)\.safetensors|tensorboard|sweep"
    r"|.*\.features\.h5.*|report\.(json|html)|.*\.explanation\.json|.*\.onnx|\.lock(\.shared-.*)?|\..*\.(part|lupctl-removed)"
)
# Moved first, so that what a killed removal leaves is no run.
FIRST = ("run.json", "recipe.toml")


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Args:
        name: of its folder.
        path: the folder.
        stage: pretrain or finetune; empty where its recipe cannot be read.
        network: depth and head, or depth and method.
        data: its packs, by name.
        start: imagenet, scratch, or what it began from; empty for a pre-training.
        teacher: what it learned from besides labels; empty without one.
        state: finished, running (a process holds its lock), stopped, damaged (a file of it cannot be read), or empty
            (without a recipe).
        step, steps: done, and of the whole run; None where nothing says so.
        scores: of a finished fine-tuning on its own test set, as fractions.
        bytes: of all its files.
        changed_at: when its newest file was written, in seconds since 1970.
    """

    name: str
    path: Path
    stage: str
    network: str
    data: tuple[str, ...]
    start: str
    teacher: str
    state: RunState
    step: int | None
    steps: int | None
    scores: dict[str, float]
    bytes: int
    changed_at: float


@dataclass(frozen=True)
class RunDetails:
    """Everything a run's folder says of it.

    Args:
        summary: as in the list.
        command: that made it, without what does not change its result; empty where it is not recorded.
        recipe: its tables.
        inputs: fingerprints, by what they are of.
        facts: of a finished run.
        files: name and bytes of each.
        children: runs that began from it.
    """

    summary: RunSummary
    command: str
    recipe: dict[str, Any]
    inputs: dict[str, str]
    facts: dict[str, Any]
    files: tuple[tuple[str, int], ...]
    children: tuple[RunSummary, ...]


def list_runs(space: Workspace) -> list[RunSummary]:
    """Every folder under the workspace's `runs/`, newest first."""
    if not space.runs.is_dir():
        return []
    paths = [path for path in space.runs.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(map(read_summary, paths), key=lambda run: (-run.changed_at, run.name))


def read_summary(path: Path) -> RunSummary:
    """What a run is and how far it is; nothing is written, and damage is a state and no error."""
    folder = RunFolder(path)
    recipe, facts, is_damaged = _read(folder)
    state: RunState = "stopped"
    if folder.is_held():
        state = "running"
    elif is_damaged:
        state = "damaged"
    elif folder.is_finished():
        state = "finished"
    elif not recipe:
        state = "empty"
    net, data, distil = recipe.get("net", {}), recipe.get("data", {}), recipe.get("distil")
    row = {} if state == "finished" else read_last_row(path)
    step, steps = facts.get("steps"), facts.get("steps", row.get("steps"))
    if state == "running":
        step = row.get("step")
    elif state == "stopped":
        step = folder.read_saved_step() if folder.resume.is_file() else 0
    scores = facts.get("scores") or {}
    return RunSummary(
        name=path.resolve().name,
        path=path,
        stage=str(recipe.get("stage", "")),
        network=" ".join(str(part) for part in (net.get("arch"), net.get("head") or recipe.get("method")) if part),
        data=_data_of(folder, data),
        start=str(recipe.get("start", "")),
        teacher=str(distil.get("teacher", "")) if isinstance(distil, dict) else "",
        state=state,
        step=step,
        steps=steps,
        scores={name: float(value) for name, value in scores.items() if value is not None},
        bytes=count_bytes(path) if not path.is_symlink() else count_bytes(path.resolve()),
        changed_at=max((file.lstat().st_mtime for file in path.iterdir()), default=path.stat().st_mtime),
    )


def read_details(space: Workspace, path: Path) -> RunDetails:
    """Everything that a run's folder says, and the runs of the workspace that began from it.

    Raises:
        DataError: a file of it cannot be read.
    """
    folder, summary = RunFolder(path), read_summary(path)
    setup = folder.read_setup() if folder.has_begun() else {"recipe": {}, "inputs": {}}
    text = folder.recipe.read_text(encoding="utf-8") if folder.has_begun() else ""
    facts = folder.read_facts() if folder.facts.is_file() else {}
    files = sorted((file.name, count_bytes(file)) for file in path.iterdir() if file.name != LOCK_NAME)
    return RunDetails(
        summary=summary,
        command=read_command(text) or _command_of(folder),
        recipe=setup["recipe"],
        inputs=setup["inputs"],
        facts=facts,
        files=tuple(files),
        children=tuple(find_children(space, path)),
    )


def find_children(space: Workspace, path: Path) -> list[RunSummary]:
    """The runs of a workspace whose recipe says that they began or learned from a run, by its name or a path to it."""
    own = {path.resolve(), path.resolve() / CHECKPOINT_NAME}
    return [
        run
        for run in list_runs(space)
        if any({Path(name).resolve(), (space.runs / name).resolve()} & own for name in (run.start, run.teacher) if name)
    ]


def check_removable(space: Workspace, paths: Sequence[Path]) -> None:
    """Refuses to remove what is no run, is in use, or is needed by a stopped run that stays.

    Raises:
        DataError: a folder is no run's, or a process is training into one.
        UsageError: a stopped run began or learned from it.
    """
    for path in paths:
        if path.parent.resolve() != space.runs.resolve() and not any((path / name).is_file() for name in FIRST):
            raise DataError(f"{path}: not the folder of a run, it has no recipe.toml", hint="lupctl run list")
        if RunFolder(path).is_held():
            raise _in_use(path)
    gone = {path.resolve() for path in paths}
    for path in paths:
        for child in find_children(space, path):
            if child.state in ("stopped", "running") and child.path.resolve() not in gone:
                names = shlex.join([*(path.name for path in paths), child.name])
                raise UsageError(
                    f"{path}: {child.path} is {child.state} and needs it to continue",
                    hint=f"finish that one first, or remove both: lupctl run rm {names}",
                )


def foreign_files(path: Path) -> list[Path]:
    """What is in a run's folder and not lupctl's; it stays. What a link names stays as it is."""
    return [] if path.is_symlink() else sorted(file for file in path.iterdir() if not OWN.fullmatch(file.name))


def remove_run(path: Path) -> None:
    """Removes a run: its folder, or only lupctl's files if there are others in it; of a link, the link alone.

    It is moved aside first, and what says that it is a run before the rest.

    Raises:
        DataError: a process is training into it.
        DataError: the disk refuses.
    """
    remove_leftovers(path.parent)
    if path.is_symlink():
        path.unlink()
        return
    with held(path / LOCK_NAME) as is_free:
        if not is_free:
            raise _in_use(path)
        if os.name != "nt":  # Windows moves no folder in which a file is open
            _remove(path)
    _remove(path)


def _remove(path: Path) -> None:
    if not path.is_dir():
        return
    if not foreign_files(path):
        remove_aside([path], path.name)
        return
    remove_leftovers(path)
    others = sorted(file for file in path.iterdir() if OWN.fullmatch(file.name) and file.name not in FIRST)
    remove_aside([*(path / name for name in FIRST), *others], path.resolve().name)


def _in_use(path: Path) -> DataError:
    return DataError(f"{path}: another lupctl is training into this folder", hint="stop it with Ctrl-C, or wait")


def _read(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """A run's recipe and facts, empty where there are none, and whether a file cannot be read."""
    recipe, facts, is_damaged = dict[str, Any](), dict[str, Any](), False
    try:
        recipe = parse_toml(folder.recipe.read_text(encoding="utf-8"), RECIPE_SHAPE) if folder.has_begun() else {}
    except (OSError, ValueError):
        is_damaged = True
    try:
        facts = folder.read_facts() if folder.facts.is_file() else {}
    except DataError:
        is_damaged = True
    return recipe, facts, is_damaged


def _data_of(folder: RunFolder, recipe: dict[str, Any]) -> tuple[str, ...]:
    """The packs of a run: as the fingerprints of its inputs name them, else as its recipe does."""
    try:
        inputs = parse_json((folder.path / INPUTS_NAME).read_text(encoding="utf-8"), INPUTS_SHAPE, is_foreign=False)
        named = [name.removeprefix("pack:") for name in inputs if name.startswith("pack:")]
    except (OSError, ValueError):
        named = []
    return tuple(named or [Path(name).stem for name in recipe.get("packs", [])])


def _command_of(folder: RunFolder) -> str:
    """The command that a finished run's checkpoint records; empty where there is none."""
    from lupctl.core.formats.weights.header import read_header

    try:
        return shlex.join(read_header(folder.checkpoint).command)
    except DataError:
        return ""
