"""The command `lupctl`: which subcommands there are, and how errors leave the program."""

import sys
from typing import Annotated

import typer

from lupctl.cli.data import info, pack, verify
from lupctl.cli.demo import demo
from lupctl.cli.doctor import doctor
from lupctl.cli.dump import dump
from lupctl.cli.evaluate import evaluate
from lupctl.cli.finetune import finetune
from lupctl.cli.pretrain import pretrain
from lupctl.cli.recipe import list_recipes, show_recipe
from lupctl.cli.show import print_error, tracebacks_wanted
from lupctl.core.errors import LupError

app = typer.Typer(
    name="lupctl",
    help="Person re-identification from one command line: pack, pre-train without labels, fine-tune, evaluate.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("pretrain")(pretrain)
app.command("finetune")(finetune)
app.command("dump")(dump)
data = typer.Typer(no_args_is_help=True, help="Datasets: pack, look inside, verify.")
app.add_typer(data, name="data")
data.command("pack")(pack)
data.command("info")(info)
data.command("verify")(verify)
app.command("eval")(evaluate)
recipe = typer.Typer(no_args_is_help=True, help="Recipes: what a training run does, to the last constant.")
app.add_typer(recipe, name="recipe")
recipe.command("list")(list_recipes)
recipe.command("show")(show_recipe)
app.command("demo")(demo)
app.command("doctor")(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lupctl {version('lupctl')}")
        raise typer.Exit


@app.callback()
def lupctl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Person re-identification from one command line: pack, pre-train without labels, fine-tune, evaluate.

    Try it on drawn persons, on a CPU, in minutes: `lupctl demo`
    """


def main() -> None:
    """Runs a command; every expected failure becomes one line, one hint and an exit code."""
    try:
        app()
    except LupError as error:
        if tracebacks_wanted():
            raise
        print_error(error)
        sys.exit(error.exit_code)
    except MemoryError:
        print("error: out of memory\nhint: a smaller batch: --set data.batch=...", file=sys.stderr)
        sys.exit(5)
    except BrokenPipeError:
        # The reader of our output went away, as `lupctl ... | head` does; not an error of ours.
        sys.stderr.close()
        sys.exit(0)
