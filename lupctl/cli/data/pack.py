"""`lupctl data pack` and `lupctl data info`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.data.reading_options import (
    AcceptOption,
    CamerasOption,
    KeysOption,
    LayoutOption,
    RootOption,
    ValOption,
    VersionOption,
)
from lupctl.cli.data.size import parse_size
from lupctl.cli.data.tables import show_packs, show_sheet, show_summary
from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
    ShardBytesOption,
)
from lupctl.cli.output import print_json
from lupctl.core.choices import DRAWING_SEED, MAX_BAD, SHARD_BYTES, SPLIT_SEED, ImageCheck
from lupctl.core.errors import raise_all
from lupctl.core.resolve.data.layouts import Reading
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

INFO_SCHEMA = "lupctl.info/1"

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME|FOLDER",
        help="Datasets under raw/, `synthetic`, or one folder anywhere [default: everything under raw/]; "
        "with --merge, packs too.",
        autocompletion=complete_dataset,
        show_default=False,
    ),
]
PackArgument = Annotated[
    str, typer.Argument(metavar="PACK", help="A dataset's name or a pack.", autocompletion=complete_dataset)
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the dataset in a FOLDER [default: the folder's].", show_default=False),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Resize and re-encode every image, as in 256x128 [default: keep the original bytes].",
        show_default=False,
    ),
]
CheckOption = Annotated[
    ImageCheck | None,
    typer.Option(
        "--check",
        help="How images are checked: decode, or header, which looks only at the header and end of a JPEG or PNG and "
        "is many times faster; `lupctl data verify --deep` decodes later [default: decode].",
        show_default=False,
    ),
]
MaxBadOption = Annotated[
    float, typer.Option("--max-bad", min=0, max=1, help="Largest share of images that may be unreadable and left out.")
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help=f"For `synthetic`: another seed draws other persons [default: {DRAWING_SEED}].",
        show_default=False,
    ),
]
NoiseOption = Annotated[
    str | None,
    typer.Option(
        "--label-noise",
        metavar="split:S,merge:M|none",
        help="Give training images the labels that a tracker would: a share S of the persons is split into two labels, "
        "and a share M of these gets the label of another person. The record keeps the truth "
        "[default: as in the pack, else none; of `synthetic` none].",
        show_default=False,
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="persons:R|images:R|cameras:C,C|FILE|none",
        help="Divide labelled images that have no roles into train, query and gallery: train on R of the persons and "
        "test on the others, on R of every person's images, on some cameras, or as a file of path,role says "
        "[default: as in the pack, else none; of `synthetic` none].",
        show_default=False,
    ),
]
SplitSeedOption = Annotated[
    int | None,
    typer.Option(
        "--split-seed", min=0, help=f"Another seed draws another split [default: {SPLIT_SEED}].", show_default=False
    ),
]
MergeOption = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="NEWNAME",
        help="Merge everything named, raw data and packs, into one pack of this name, without labels: persons and "
        "cameras of different datasets are not the same. Queries and gallery are left out.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding threads [default: one per core, at most 16].", show_default=False),
]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        "--sheet", help="Draw a contact sheet here: a row per person, a column per camera.", show_default=False
    ),
]


def pack(
    names: NamesArgument = None,
    layout: LayoutOption = None,
    name: NameOption = None,
    cameras: CamerasOption = None,
    version: VersionOption = None,
    val: ValOption = None,
    keys: KeysOption = None,
    root: RootOption = None,
    accept_terms: AcceptOption = False,
    size: SizeOption = None,
    check: CheckOption = None,
    max_bad: MaxBadOption = MAX_BAD,
    shard_bytes: ShardBytesOption = SHARD_BYTES,
    seed: SeedOption = None,
    label_noise: NoiseOption = None,
    split: SplitOption = None,
    split_seed: SplitSeedOption = None,
    merge: MergeOption = None,
    workers: ThreadsOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Packs each dataset into one file: all its images, checked, with their labels.

    Examples:

    `lupctl data pack` (everything under raw/ that has no up-to-date pack)

    `lupctl data pack ~/staff` (a folder per person, as in staff/ana/c1_001.jpg)

    `lupctl data pack staff --split persons:0.5` (train on half of the persons, test on the others)

    `lupctl data pack my.csv --name mine` (columns path, person, camera, role)

    `lupctl data pack luperson --check header` (trusts that a file that starts and ends like a JPEG is one)

    `lupctl data pack luperson market1501 photos.h5 --merge everybody` (one unlabelled pack to pre-train on)
    """
    from lupctl.core.flows.packing import PackOptions, pack_datasets

    options = PackOptions(
        names=tuple(names or ()),
        dataset=name,
        merged=merge,
        out=out,
        reading=Reading(layout, cameras, seed, version, val, keys, root, label_noise),
        split=split,
        split_seed=split_seed,
        size=parse_size(size),
        check=check,
        max_bad=max_bad,
        shard_bytes=shard_bytes,
        workers=workers,
        accept_terms=accept_terms,
        force=force,
        dry_run=dry_run,
        command=recorded_command(),
    )
    packed = pack_datasets(open_workspace(home), options, Progress(quiet=quiet))
    show_packs(packed.plans, packed.results, dry_run=dry_run, force=force, json=json)
    raise_all(packed.errors)


def info(
    pack: PackArgument,
    sheet: SheetOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows what is inside a pack, as a table and as a contact sheet.

    Examples:

    `lupctl data info market1501 --sheet sheet.png`

    `lupctl data info lup/packs/market1501.h5 --json`
    """
    from lupctl.core.stages import info as stage

    path = pick_pack(open_workspace(home), pack, Progress(quiet=quiet))
    summary = stage.summarize_pack(path)
    drawn = stage.write_sheet(path, sheet, force=force) if sheet else None
    if json:
        facts = {} if drawn is None else asdict(drawn)
        print_json(INFO_SCHEMA, {**asdict(summary), "sheet": facts.pop("path", None), "sheet_shows": facts or None})
        return
    show_summary(summary)
    if drawn:
        show_sheet(drawn)
