"""`lupctl data rm`."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.options import DebugOption, DryRunOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.cli.removal import YesOption, ask_to_remove, write_size
from lupctl.core.flows.removal import check_unused
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.removal import Kind

NamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Datasets, by name.", autocompletion=complete_dataset)
]
PackOption = Annotated[bool, typer.Option("--pack", help="Remove the pack [default: without --raw].")]
RawOption = Annotated[bool, typer.Option("--raw", help="Remove the raw data; with --pack both.")]
TITLES = {"pack": "pack", "raw": "raw data"}


def remove(
    names: NamesArgument,
    pack: PackOption = False,
    raw: RawOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Removes packs, or raw data with --raw, from the workspace; asks first. Links are removed and never followed.

    Examples:

    `lupctl data rm market1501`

    `lupctl data rm market1501 --raw --dry-run`
    """
    from lupctl.core.stages.removal import plan_removal, remove_data

    space, progress = open_workspace(home), Progress(quiet=quiet)
    kinds: list[Kind] = ["pack", "raw"] if pack and raw else ["raw"] if raw else ["pack"]
    removals = plan_removal(space, names, kinds)
    check_unused(space, removals, progress)
    size = sum(one.bytes for one in removals)
    if not json:
        rows = [(one.dataset, TITLES[one.kind], str(one.path), write_size(one.bytes)) for one in removals]
        print_table("would remove" if dry_run else "", ["dataset", "what", "path", "size"], rows)
    if not dry_run:
        again = shlex.join([
            "lupctl", "data", "rm", *names, *(["--pack"] if pack else []), *(["--raw"] if raw else []),
            *(["--home", str(home)] if home else []), "--yes",
        ])  # fmt: skip
        packs, roots = (sum(one.kind == kind for one in removals) for kind in ("pack", "raw"))
        what = [count_things(packs, "pack")] if packs else []
        what += [f"raw data of {count_things(roots, 'dataset')}"] if roots else []
        ask_to_remove(f"{' and '.join(what)}, {write_size(size)}", yes=yes, command=again)
        for one in removals:
            remove_data(one)
            progress.say(f"removed: {one.path}")
    if json:
        found = [
            {"dataset": one.dataset, "kind": one.kind, "path": str(one.path), "bytes": one.bytes} for one in removals
        ]
        print_json("lupctl.data-rm-plan/1" if dry_run else "lupctl.data-rm/1", {"removed": found, "bytes": size})
