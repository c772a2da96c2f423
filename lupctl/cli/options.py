"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.complete import complete_arch, complete_recipe
from lupctl.cli.output import show_tracebacks
from lupctl.core.choices import NamedArch

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Workspace folder [default: $LUPCTL_HOME, else ./lup].", show_default=False),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Where the result goes.", show_default=False)]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr, only warnings and errors.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=1,
        help="Longest time for each file [default: an hour, and more for large files].",
        show_default=False,
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", callback=show_tracebacks)]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Decoding processes per device [default: one per core, at most 16; half of that on a CPU].",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda or cuda:N [default: a GPU when there is one].", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the recipe, as in optim.lr=0.1; repeatable.",
        show_default=False,
    ),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Use the network otherwise than it was trained, as in semantic_weight=0.5, size=384x128, position=dino or "
        "interpolation=bicubic; repeatable.",
        show_default=False,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="A shipped recipe's name or a TOML file.", show_default=False, autocompletion=complete_recipe
    ),
]
ArchOption = Annotated[
    NamedArch | None,
    typer.Option(
        "--arch",
        help="A ResNet's depth, or a vision transformer's size, -ics with its stem [default: the recipe's].",
        show_default=False,
        autocompletion=complete_arch,
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option("--gpus", min=0, help="GPUs to use; 0 is the CPU [default: all].", show_default=False),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=1,
        help="CPU processes, each with a share of the cores, with --gpus 0 [default: 1 with all cores].",
        show_default=False,
    ),
]
ShardBytesOption = Annotated[
    int, typer.Option("--shard-bytes", min=1, metavar="BYTES", help="Most image bytes per file.")
]
