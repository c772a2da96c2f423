"""The runs that a user names."""

from collections.abc import Sequence
from pathlib import Path

from lupctl.core.choices import nearest_name
from lupctl.core.errors import DataError
from lupctl.core.workspace import RECIPE_NAME, RUN_NAME, Workspace


def find_run(space: Workspace, name: str) -> Path:
    """The folder of a run, finished or not: one of the workspace by its name, else the folder of that path.

    Raises:
        DataError: there is none.
    """
    named = space.runs / name
    if name not in ("", ".", "..") and "/" not in name and named.is_dir():
        return named
    path = Path(name)
    if path.is_dir() and (
        path.resolve().parent == space.runs.resolve() or any((path / own).is_file() for own in (RECIPE_NAME, RUN_NAME))
    ):
        return path
    there = [found.name for found in space.runs.iterdir() if found.is_dir()] if space.runs.is_dir() else []
    guess = nearest_name(Path(name).name, there)
    raise DataError(
        f"no run {name!r} in {space.runs}, nor a run's folder of that path",
        hint=f"did you mean {guess}?" if guess else "lupctl run list",
    )


def find_runs(space: Workspace, names: Sequence[str]) -> list[Path]:
    """The folders of several runs, each once, in the order in which they are named.

    Raises:
        DataError: there is no such run.
    """
    found: dict[Path, Path] = {}
    for path in (find_run(space, name) for name in names):
        found.setdefault(path.parent.resolve() / path.name, path)
    return list(found.values())
