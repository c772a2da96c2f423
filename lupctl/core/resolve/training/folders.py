"""The folder of a run where none was named: its own, that of the same recipe before, or a new one."""

import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lupctl.core.system.progress.lines import Progress


def choose_run(base: Path, describe: Callable[[], Mapping[str, Any]], *, force: bool, progress: Progress) -> Path:
    """The folder for a run among `base`, `base-2`, `base-3` and so on.

    The run with exactly this recipe and these inputs, so that the same command finds it again. Else one that is not
    finished, which is then refused, because its work would be lost. Else a new one, which a line names: finished runs
    are kept.

    Args:
        base: where the run would be if it were the only one.
        describe: computes the recipe and the fingerprints of the inputs, as a run's folder keeps them.
        force: a run is to be started over; if none has this recipe and all are finished, that is `base`.
        progress: takes the line.

    Raises:
        DataError: the recipe of a run there is damaged.
    """
    from lupctl.core.training.engine.runs import RunFolder
    from lupctl.core.training.engine.state import first_difference

    there = [folder for path in _same_name(base) if (folder := RunFolder(path)).has_begun()]
    if not there or there[0].path != base:
        return base
    try:
        tables = describe()
    except OSError:
        return base  # an input is missing; the stage's own checks name it
    differences = {}
    for folder in there:
        differences[folder.path] = first_difference(folder.read_setup(), tables)
        if differences[folder.path] is None:
            return folder.path
    unfinished = [folder.path for folder in there if not folder.is_finished()]
    if unfinished or force:
        return unfinished[0] if unfinished else base
    free = next(path for number in count(2) if not (path := base.with_name(f"{base.name}-{number}")).exists())
    found = differences[base]
    assert found is not None
    progress.say(f"run: {free} (new: {base} is finished, with {found[0]} = {found[1]!r}, not {found[2]!r})")
    return free


def _same_name(base: Path) -> list[Path]:
    """The folders of a name and its numbered successors, in order."""
    pattern = re.compile(rf"{re.escape(base.name)}(?:-(\d+))?")
    found = []
    for path in base.parent.iterdir() if base.parent.is_dir() else ():
        if matched := pattern.fullmatch(path.name):
            found.append((int(matched[1] or 1), path))
    return [path for _, path in sorted(found)]
