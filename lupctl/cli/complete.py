"""Shell completion of names."""

import os
from pathlib import Path
from typing import get_args

import typer

from lupctl.core.choices import Dataset, NamedArch
from lupctl.core.resolve.data.datasets import raw_names
from lupctl.core.workspace import RECIPE_NAME, Workspace, open_workspace


def complete_arch(incomplete: str) -> list[str]:
    """Architectures."""
    return _matching(set(get_args(NamedArch)), incomplete)


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """Raw data and packs of the workspace, and the datasets lupctl knows; with a `/`, folders and files."""
    if "/" in incomplete:
        return complete_path(incomplete)
    space = _workspace_of(context)
    packs = {pack.stem for pack in space.pack_paths()}
    return _matching({*raw_names(space), *packs, *get_args(Dataset)}, incomplete)


def complete_path(incomplete: str) -> list[str]:
    """Folders, each with a `/`, and files that begin like a path."""
    folder, _, begun = incomplete.rpartition("/")
    try:
        with os.scandir(folder or "/") as entries:
            found = [f"{entry.name}{'/' * entry.is_dir()}" for entry in entries if entry.name.startswith(begun)]
    except OSError:
        return []
    return sorted(f"{folder}/{name}" for name in found if begun or not name.startswith("."))


def complete_published(incomplete: str) -> list[str]:
    """Published networks that have scores."""
    from lupctl.core.data.catalog.weights import PUBLISHED

    return _matching({one.name for one in PUBLISHED if one.scores}, incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from lupctl.core.recipes.shipped import shipped_recipes

    return _matching({recipe.name for recipe in shipped_recipes()}, incomplete)


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Runs of the workspace."""
    runs = _workspace_of(context).runs
    return _matching({path.parent.name for path in runs.glob(f"*/{RECIPE_NAME}")}, incomplete)


def complete_recipe_or_run(context: typer.Context, incomplete: str) -> list[str]:
    """Shipped recipes, and runs of the workspace."""
    return sorted({*complete_recipe(incomplete), *complete_run(context, incomplete)})


def complete_start(context: typer.Context, incomplete: str) -> list[str]:
    """Runs of the workspace, and the starts that need none."""
    return sorted({*_matching({"imagenet", "scratch", "finetuned"}, incomplete), *complete_run(context, incomplete)})


def complete_method(context: typer.Context, incomplete: str) -> list[str]:
    """Runs of the workspace, and the start that needs none."""
    return sorted({*_matching({"scratch"}, incomplete), *complete_run(context, incomplete)})


def _workspace_of(context: typer.Context) -> Workspace:
    home = context.params.get("home")
    return open_workspace(Path(home) if home else None)


def _matching(names: set[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
