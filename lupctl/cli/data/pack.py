"""`lupctl data pack` and `lupctl data info`."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from lupctl.cli.data.tables import show_packs, show_summary
from lupctl.cli.failures import raise_all
from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
)
from lupctl.cli.output import print_json, print_path
from lupctl.core.choices import ImageCheck
from lupctl.core.errors import LupError, UsageError
from lupctl.core.resolve.datasets import Reading, Target, build_target_source, check_notice, find_packable, find_targets
from lupctl.core.resolve.merged import build_merged_source, merge_target
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.pack import PackPlan, PackResult

INFO_SCHEMA = "lupctl.info/1"
SIZE_RULE = re.compile(r"(\d{1,5})x(\d{1,5})")

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME|FOLDER",
        help="Datasets under raw/, `synthetic`, or one folder anywhere [default: everything under raw/]; "
        "with --merge packs, too.",
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
        help="Resize every image and encode it again, as in 256x128 [default: bytes are kept].",
        show_default=False,
    ),
]
CheckOption = Annotated[
    ImageCheck | None,
    typer.Option(
        "--check",
        help="What an image has to pass: to be decoded, or that header and end of a JPEG or PNG are whole, which is "
        "many times as fast; `lupctl data verify --deep` decodes later [default: decode].",
        show_default=False,
    ),
]
MaxBadOption = Annotated[
    float, typer.Option("--max-bad", min=0, max=1, help="Share of images that may be unreadable and left out.")
]
ShardBytesOption = Annotated[
    int, typer.Option("--shard-bytes", min=1, metavar="BYTES", help="Most image bytes in one file.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="For `synthetic`: another seed, other persons.")]
MergeOption = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="NEWNAME",
        help="Put all that is named, raw data and packs, into one pack of this name, without labels: persons and "
        "cameras of different datasets are not the same. Queries and gallery are left out.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding threads [default: the cores, at most 16].", show_default=False),
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
    max_bad: MaxBadOption = 0.001,
    shard_bytes: ShardBytesOption = 8 * 2**30,
    seed: SeedOption = 0,
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
    """Packs datasets: all images of one in one file, checked, with their labels.

    Examples:

    `lupctl data pack` (everything under raw/ that has no up-to-date pack)

    `lupctl data pack market1501 --force`

    `lupctl data pack ~/crops --layout persons --cameras prefix --name crops`

    `lupctl data pack my.csv --name mine` (columns path, person, camera, role)

    `lupctl data pack msmt17 --version v1`

    `lupctl data pack luperson --check header` (trusts that what begins and ends as a JPEG is one)

    `lupctl data pack synthetic --seed 1`

    `lupctl data pack luperson market1501 photos.h5 --merge everybody` (one unlabelled pack to pre-train on)
    """
    workspace = open_workspace(home)
    progress = Progress(quiet=quiet)
    if merge is None:
        targets = (
            _pick_targets(workspace, names or [], name=name, out=out)
            if names or name or out
            else find_packable(workspace, progress)
        )
    else:
        targets = [merge_target(workspace, merge, out=out, dataset=name)]
    height_width = _parse_size(size)
    if height_width and check == "header":
        raise UsageError("--check header: to be resized, images are decoded", hint="leave --check or --size out")
    reading = Reading(layout, cameras, seed, version, val, keys, root)
    from lupctl.core.data.packing.filling import PackSettings
    from lupctl.core.stages import pack as stage

    settings = PackSettings(height_width, check or "decode", max_bad, shard_bytes)
    plans: list[tuple[Target, PackPlan]] = []
    results: list[PackResult] = []
    errors: list[LupError] = []
    for target in targets:
        try:
            source = (
                build_target_source(target, reading, progress=progress)
                if merge is None
                else build_merged_source(workspace, names or [], merge, reading, progress=progress)
            )
            plan = stage.plan_pack(source, out=target.out, size=height_width, check=check or "header")
            plans.append((target, plan))
            if plan.state == "current" and not force:
                progress.say(f"{target.dataset}: {plan.path} is up to date")
                if not dry_run:
                    stage.tidy_up(target.out)
                continue
            if plan.state == "changed" and not force:
                raise _changed(target, plan, merge=merge)
            check_notice(source, accepted=accept_terms, progress=progress)
            if dry_run:
                continue
            results.append(
                stage.pack(
                    source,
                    out=target.out,
                    progress=progress,
                    settings=settings,
                    force=force,
                    workers=workers,
                    command=["lupctl", *sys.argv[1:]],
                )
            )
        except LupError as error:
            # One bad dataset does not keep the others from being packed.
            errors.append(error)
    show_packs(plans, results, dry_run=dry_run, force=force, json=json)
    raise_all(errors)


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

    path = open_workspace(home).find_pack(pack)
    summary = stage.summarize_pack(path)
    drawn = stage.write_sheet(path, sheet, force=force) if sheet else None
    if json:
        print_json(INFO_SCHEMA, {**asdict(summary), "sheet": drawn})
        return
    show_summary(summary)
    if drawn:
        print_path(drawn)


def _pick_targets(workspace: Workspace, names: list[str], *, name: str | None, out: Path | None) -> list[Target]:
    given = "--name" if name is not None else "--out" if out is not None else None
    if given is not None and len(names) != 1:
        raise UsageError(
            f"{given} goes with one dataset, {len(names) or 'everything under raw/'} was asked for",
            hint="name one dataset or folder",
        )
    targets = find_targets(workspace, names, dataset=name)
    if out is None:
        return targets
    if len(targets) > 1:
        raise UsageError(
            f"--out goes with one dataset, {names[0]} holds {' and '.join(target.dataset for target in targets)}",
            hint=f"name one: lupctl data pack {targets[0].dataset}",
        )
    return [Target(targets[0].dataset, targets[0].root, out)]


def _parse_size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    found = SIZE_RULE.fullmatch(size)
    if found is None or not all(0 < int(side) <= 65_535 for side in found.groups()):
        raise UsageError(f"--size {size}: height and width were expected", hint="--size 256x128")
    return int(found[1]), int(found[2])


def _changed(target: Target, plan: "PackPlan", *, merge: str | None) -> UsageError:
    what = target.root if target.out.stem != target.dataset else target.dataset
    return UsageError(
        f"{plan.path}: is not up to date and would be overwritten: {plan.reason}",
        hint=f"lupctl data pack {f'NAME... --merge {merge}' if merge else what} --force",
    )
