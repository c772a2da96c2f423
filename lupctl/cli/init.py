"""`lupctl init`: the commands from what is there to scores."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.options import DebugOption, ForceOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER|CSV|VIDEOS|NAME",
        help="A folder of images, a table, videos, a pack, or a name in the workspace [default: the workspace].",
        autocompletion=complete_dataset,
        show_default=False,
    ),
]
WriteOption = Annotated[
    Path | None,
    typer.Option("--write", metavar="FILE.sh", help="Write the commands as a script.", show_default=False),
]


def init(
    subject: SubjectArgument = None,
    write: WriteOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Looks at images, a table or videos, and prints the commands from there to scores, with their times here.

    Examples:

    `lupctl init staff` (a folder with a folder of images for each person)

    `lupctl init pets09-s2l1 --write pets.sh`

    `lupctl init` (what the workspace holds)
    """
    from lupctl.core.flows.init.advice import advise
    from lupctl.core.flows.init.script import write_script, write_text

    advice = advise(open_workspace(home), subject, home=home, progress=Progress(quiet=quiet))
    if write is not None:
        write_script(advice, write, force=force)
    if json:
        print_json("lupctl.init/1", {**advice.to_json(), "script": None if write is None else str(write)})
    elif write is not None:
        print_path(write)
    else:
        print(write_text(advice), end="")
