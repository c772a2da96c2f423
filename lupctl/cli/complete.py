"""Shell completion of names."""

from typing import get_args

from lupctl.core.choices import Arch, Dataset
from lupctl.core.workspace import RECIPE_NAME, open_workspace


def complete_dataset(incomplete: str) -> list[str]:
    """Datasets that lupctl knows, and those the workspace holds."""
    space = open_workspace()
    names = {*get_args(Dataset), *(path.stem for path in space.pack_paths())}
    if space.raw.is_dir():
        names |= {path.name for path in space.raw.iterdir()}
    return _matching(names, incomplete)


def complete_arch(incomplete: str) -> list[str]:
    """Architectures."""
    return _matching(set(get_args(Arch)), incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from lupctl.core.recipes.shipped import shipped_recipes

    return _matching({recipe.name for recipe in shipped_recipes()}, incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Runs of the workspace."""
    runs = open_workspace().runs
    return _matching(
        {path.parent.name for path in runs.glob(f"*/{RECIPE_NAME}")} if runs.is_dir() else set(), incomplete
    )


def _matching(names: set[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
