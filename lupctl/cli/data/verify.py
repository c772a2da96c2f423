"""`lupctl data verify`: whether raw data and packs are sound."""

from dataclasses import asdict
from typing import Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.data.pack import ThreadsOption
from lupctl.cli.data.reading_options import (
    CamerasOption,
    KeysOption,
    LayoutOption,
    RootOption,
    ValOption,
    VersionOption,
)
from lupctl.cli.data.tables import show_verdicts
from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json
from lupctl.core.resolve.data.layouts import Reading
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

VERIFY_SCHEMA = "lupctl.verify/1"

TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="NAME|PATH", help="Datasets, packs, or folders.", autocompletion=complete_dataset),
]
DeepOption = Annotated[bool, typer.Option("--deep", help="Also decode every image of a pack; raw images always are.")]
FastOption = Annotated[bool, typer.Option("--fast", help="Counts, names and labels only; no image is read.")]


def verify(
    targets: TargetsArgument,
    layout: LayoutOption = None,
    cameras: CamerasOption = None,
    version: VersionOption = None,
    val: ValOption = None,
    keys: KeysOption = None,
    root: RootOption = None,
    deep: DeepOption = False,
    fast: FastOption = False,
    workers: ThreadsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Checks raw data and packs: published counts, unreadable images, copies, persons in both train and test.

    Raw images are decoded. For a pack, every checksum is compared; its raw data may be gone.

    Examples:

    `lupctl data verify market1501` (its raw data and its pack)

    `lupctl data verify lup/packs/market1501.h5 --deep`

    `lupctl data verify luperson --fast --json`

    Exits with 3 when an error is found; warnings and notes are printed.
    """
    from lupctl.core.flows.verification import VerifyOptions, refuse_unsound, verify_all

    reading = Reading(layout, cameras, version=version, with_val=val, keys=keys, root=root)
    options = VerifyOptions(tuple(targets), reading, deep=deep, fast=fast, workers=workers)
    verdicts = verify_all(open_workspace(home), options, Progress(quiet=quiet))
    if json:
        sound = all(verdict.num_errors == 0 for verdict in verdicts)
        print_json(VERIFY_SCHEMA, {"sound": sound, "verdicts": [asdict(verdict) for verdict in verdicts]})
    else:
        show_verdicts(verdicts)
    refuse_unsound(verdicts)
