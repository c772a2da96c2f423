"""Data before it is removed: who is using it, and who will need it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import UsageError
from lupctl.core.resolve.data.packs import read_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.removal import Removal


def check_unused(space: Workspace, removals: "Sequence[Removal]", progress: Progress) -> None:
    """Refuses to remove a pack that a process is training on; reports what else removing it would mean.

    Raises:
        UsageError: names the run.
    """
    from lupctl.core.stages.runs import list_runs

    packs = {one.dataset for one in removals if one.kind == "pack"}
    for run in list_runs(space):
        used = sorted(packs & set(run.data))
        if used and run.state == "running":
            raise UsageError(f"{used[0]}: {run.path} is training on it", hint="stop it with Ctrl-C, or wait")
        if used and run.state == "stopped":
            progress.say(f"{run.path}: stopped, and needs {used[0]} to continue")
    for one in removals:
        if one.is_link:
            progress.say(f"{one.path}: a link; what it names stays")
        if one.also:
            progress.say(f"{one.path}: {', '.join(one.also)} is read from it too")
        if one.kind == "raw" and one.dataset not in packs and not space.pack_path(one.dataset).exists():
            progress.say(f"{one.path}: there is no pack of it; these images are then nowhere in {space.home}")
        if one.kind == "pack" and not (space.raw / one.dataset).exists() and not one.is_link:
            root = read_source(one.path).get("root")
            stays = root is not None and Path(str(root)).exists()
            from_there = (
                f"made from {root}, which stays" if stays else "its raw data is not there to make it again from"
            )
            progress.say(f"{one.path}: {from_there}")
