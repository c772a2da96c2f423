"""`lupctl model convert`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
    RecipeOption,
)
from lupctl.cli.show import print_json, print_path, print_plan
from lupctl.core.progress import Progress
from lupctl.core.workspace import open_workspace

SourceArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Published weights: .pth, .pt or .safetensors.")]
ReidOption = Annotated[bool, typer.Option("--reid", help="Refuse a file that holds a pre-trained trunk only.")]
BgrOption = Annotated[bool, typer.Option("--bgr", help="The network was trained on BGR; turn its input round.")]


def convert_model(
    source: SourceArgument,
    recipe: RecipeOption = None,
    reid: ReidOption = False,
    bgr: BgrOption = False,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Makes a checkpoint of published weights; every tensor fits, or the file is refused. Nothing in it is executed.

    Known are MGN models as LUPerson's projects publish them, and pre-trained ResNet trunks, which serve as a start for
    `finetune --from`. Where the file has no pixel constants, --recipe says whose it gets.

    Examples:

    `lupctl model convert market.pth --out mgn.safetensors --json`

    `lupctl model convert lup_moco_r50.pth`
    """
    from lupctl.core.stages.convert import ConvertJob, MismatchError, convert

    progress = Progress(quiet=quiet)
    job = ConvertJob(
        source=source,
        out=out or open_workspace(home).models / f"{source.stem}.safetensors",
        recipe=recipe,
        reid=reid,
        bgr=bgr,
        force=force,
        command=("lupctl", *sys.argv[1:]),
    )
    try:
        facts = convert(job, progress, dry=dry_run)
    except MismatchError as error:
        print_differences(error.rows)
        raise
    if dry_run:
        print_plan("lupctl.convert-plan/1", "would convert", facts, json=json)
    elif json:
        print_json("lupctl.convert/1", facts)
    else:
        told = f"{facts['network']} {facts['arch']} ({facts['use']}): {facts['matched']} tensors matched"
        progress.say(f"{told}, {len(facts['ignored'])} ignored, {len(facts['missing'])} missing that may be")
        print_path(job.out)


def print_differences(rows: tuple[tuple[str, str, str], ...]) -> None:
    """Prints the tensors that do not fit, on stderr."""
    table = [("tensor", "in the file", "in the network"), *rows]
    wide = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, wide, strict=True))
        print("  ".join(cells).rstrip(), file=sys.stderr)
