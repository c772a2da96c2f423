"""The recipe that a name means: a run's, a shipped one, or a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import TrainingStage
from lupctl.core.errors import UsageError
from lupctl.core.workspace import RECIPE_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import Recipe


def find_recipe(
    space: Workspace, name: str, overrides: Sequence[str], stage: TrainingStage | None = None
) -> "tuple[str, Recipe]":
    """The recipe with every key filled in, and where it was found: a run's file, else the name itself.

    Args:
        space: where runs are.
        name: a run's name or folder, a shipped recipe, or a TOML file.
        overrides: `--set` entries, KEY=VALUE.
        stage: of a shipped name; None if one stage alone has it.

    Raises:
        UsageError: there is no such recipe, both stages have it, or an entry does not fit it.
    """
    from lupctl.core.recipes.shipped import MODELS, find_text, read_resolved, resolve_recipe, shipped_recipes
    from lupctl.core.recipes.text import parse_recipe

    run = next((path for path in (Path(name), space.runs / name) if (path / RECIPE_NAME).is_file()), None)
    if run is not None:
        name = str(run / RECIPE_NAME)
    if stage is None and len([one for one in shipped_recipes() if one.name == name]) > 1:
        raise UsageError(
            f"{name}: both stages have a recipe of this name", hint=f"lupctl recipe show {name} --stage pretrain"
        )
    text, origin = find_text(name, stage)
    found = parse_recipe(text, origin=origin).get("stage", "")
    return name, resolve_recipe(found, name, overrides=overrides) if found in MODELS else read_resolved(Path(name))
