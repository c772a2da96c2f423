"""`lupctl recipe list` and `lupctl recipe show`."""

from typing import Annotated

import typer

from lupctl.cli.complete import complete_recipe_or_run
from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption, SetOption
from lupctl.cli.output import print_json, print_table
from lupctl.core.choices import TrainingStage
from lupctl.core.resolve.training.recipes import find_recipe
from lupctl.core.workspace import open_workspace

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|RUN", help="A shipped recipe, a TOML file, or a run.", autocompletion=complete_recipe_or_run
    ),
]


StageOption = Annotated[
    TrainingStage | None,
    typer.Option("--stage", help="Of a name that both stages have a recipe of.", show_default=False),
]


def list_recipes(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """Lists the recipes that come with lupctl.

    Example: `lupctl recipe list`
    """
    from lupctl.core.recipes.shipped import shipped_recipes

    found = shipped_recipes()
    if json:
        rows = [{"name": recipe.name, "stage": recipe.stage, **recipe.header} for recipe in found]
        print_json("lupctl.recipes/1", {"recipes": rows})
        return
    cells = [(recipe.name, recipe.stage, recipe.header["What"], recipe.header["Score"]) for recipe in found]
    print_table("", ["recipe", "stage", "what", "score"], cells)


def show_recipe(
    name: NameArgument,
    stage: StageOption = None,
    set_: SetOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Prints a recipe with every key filled in, as TOML that can be edited and used with --recipe.

    Examples:

    `lupctl recipe show bot > mine.toml`

    `lupctl recipe show luperson-moco --set net.arch=r152`
    """
    from lupctl.core.recipes.text import dump_recipe, recipe_tables

    name, resolved = find_recipe(open_workspace(home), name, set_ or [], stage)
    if json:
        print_json("lupctl.recipe/1", {"name": name, "recipe": recipe_tables(resolved)})
    else:
        print(dump_recipe(resolved), end="")
