"""The command `lupctl`: its subcommands, and how errors leave the program."""

import re
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from typing import Annotated, Any, Final, NoReturn

import typer

from lupctl.cli.data.build import build
from lupctl.cli.data.download import download
from lupctl.cli.data.list import list_datasets
from lupctl.cli.data.pack import info, pack
from lupctl.cli.data.remove import remove
from lupctl.cli.data.score import score
from lupctl.cli.data.verify import verify
from lupctl.cli.demo import demo
from lupctl.cli.doctor import doctor
from lupctl.cli.failures import explain, names_group
from lupctl.cli.init import init
from lupctl.cli.manual import manual
from lupctl.cli.model.bench import bench_models
from lupctl.cli.model.convert import convert_model
from lupctl.cli.model.export import export_model
from lupctl.cli.model.model import download_model, list_models, show_model
from lupctl.cli.output import print_error, tracebacks_wanted
from lupctl.cli.recipe import list_recipes, show_recipe
from lupctl.cli.retrieval.dump import dump
from lupctl.cli.retrieval.evaluate import evaluate
from lupctl.cli.retrieval.find import find
from lupctl.cli.retrieval.search import search
from lupctl.cli.run import list_runs, remove_runs, show_run
from lupctl.cli.train.finetune import finetune
from lupctl.cli.train.pretrain import pretrain
from lupctl.core.errors import LupError, UsageError, out_of_memory, refused_by_system
from lupctl.core.system.printing import VisibleStream

# An option with nothing after it.
EMPTY: Final = re.compile(r"--[\w-]+=")
HELP: Final = frozenset({"-h", "--help"})

app = typer.Typer(
    name="lupctl",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init)
app.command("pretrain")(pretrain)
app.command("finetune")(finetune)
app.command("dump")(dump)
data = typer.Typer(no_args_is_help=True, help="Datasets: list, download, pack, inspect, verify, score.")
app.add_typer(data, name="data")
data.command("list")(list_datasets)
data.command("download")(download)
data.command("pack")(pack)
data.command("build")(build)
data.command("info")(info)
data.command("verify")(verify)
data.command("score")(score)
data.command("rm")(remove)
run = typer.Typer(no_args_is_help=True, help="Training runs: list, inspect, remove.")
app.add_typer(run, name="run")
run.command("list")(list_runs)
run.command("show")(show_run)
run.command("rm")(remove_runs)
app.command("eval")(evaluate)
app.command("search")(search)
app.command("find")(find)
recipe = typer.Typer(no_args_is_help=True, help="Recipes: what a training run does, down to the last constant.")
app.add_typer(recipe, name="recipe")
recipe.command("list")(list_recipes)
recipe.command("show")(show_recipe)
model = typer.Typer(no_args_is_help=True, help="Import published weights, export your own.")
app.add_typer(model, name="model")
model.command("list")(list_models)
model.command("download")(download_model)
model.command("info")(show_model)
model.command("convert")(convert_model)
model.command("export")(export_model)
model.command("bench")(bench_models)
app.command("demo")(demo)
app.command("doctor")(doctor)
app.command("manual")(manual)


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


def _exit_with(error: LupError) -> NoReturn:
    if tracebacks_wanted():
        traceback.print_exception(error)
    print_error(error)
    sys.exit(error.exit_code)


def _report(error: Exception) -> NoReturn:
    """Ends with a mistake of ours."""
    traceback.print_exception(error)
    found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    print_error(LupError(f"a mistake in lupctl itself ({found})", hint="lupctl manual security says how to report it"))
    sys.exit(1)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuses a word of no letters, as a variable of a script that is not set leaves it: as a path it is any folder."""
    for before, word in pairwise(["lupctl", *arguments]):
        if not word or EMPTY.fullmatch(word):
            raise UsageError(f"an empty word after {word or before}", hint="leave it out, or write what it stands for")


def main() -> None:
    """Runs a command; every expected failure becomes an error line, a hint and an exit code."""
    command, arguments = typer.main.get_command(app), sys.argv[1:]
    # Typer shows a group's help where no command is named, but counts that as an error.
    wanted = [*arguments, "--help"] if names_group(command, arguments) else None
    if HELP.intersection(wanted or arguments):
        _run(command, arguments, wanted)  # in colours
    with redirect_stdout(VisibleStream(sys.stdout)), redirect_stderr(VisibleStream(sys.stderr)):
        _run(command, arguments, None)


def _run(command: Any, arguments: list[str], wanted: list[str] | None) -> NoReturn:
    from lupctl.core.system.disk.limits import limit_pixels

    try:
        limit_pixels()
        _refuse_empty(arguments)
        left = command.main(args=wanted, standalone_mode=False)
        sys.exit(left if isinstance(left, int) else 0)
    except LupError as error:
        _exit_with(error)
    except typer.TyperException as error:
        _exit_with(explain(error, command, arguments))
    except typer.Abort:  # a question was left unanswered
        sys.exit(130)
    except MemoryError as error:
        _exit_with(out_of_memory(error))
    except RuntimeError as error:
        # Importing torch for one class would be slow; on a CPU its allocator raises a plain RuntimeError.
        if type(error).__name__ != "OutOfMemoryError" and "DefaultCPUAllocator" not in str(error):
            _report(error)
        _exit_with(out_of_memory(error))
    except OSError as error:
        refused = refused_by_system(error)
        if refused is None:
            _report(error)
        _exit_with(refused)
    except SystemExit as request:
        # Typer exits with 1, our code for bugs, when the reader of a pipe goes away, as in `lupctl ... | head`.
        if isinstance(request.__context__, BrokenPipeError):
            sys.exit(0)
        raise
    except Exception as error:
        _report(error)
