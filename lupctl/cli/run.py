"""`lupctl run list`, `lupctl run show` and `lupctl run rm`."""

import shlex
import shutil
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.complete import complete_run
from lupctl.cli.options import DebugOption, DryRunOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import SCORE_NAMES, print_json, print_table
from lupctl.cli.removal import YesOption, ask_to_remove, write_age, write_size
from lupctl.core.resolve.hints import hint_to_finish
from lupctl.core.resolve.training.runs import find_run, find_runs
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.runs import RunDetails, RunSummary

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run, by name or folder.", autocompletion=complete_run)
]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Runs, by name or folder.", autocompletion=complete_run)
]
WIDEST = 160  # of a table that no terminal shows


def list_runs(
    home: HomeOption = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Lists the training runs of the workspace, newest first: state, scores, size and age.

    Example: `lupctl run list`
    """
    from lupctl.core.stages.runs import list_runs as stage

    space = open_workspace(home)
    runs = stage(space)
    if json:
        print_json("lupctl.runs/1", {"runs": [payload(run) for run in runs]})
        return
    if not runs:
        Progress(quiet=quiet).say(f"{space.runs}: no runs yet; lupctl pretrain and lupctl finetune make them")
        return
    show_list(runs)


def show_run(
    run: RunArgument,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows what a run is: its recipe in words, its data, start and scores, its files, and the command that made it.

    Example: `lupctl run show finetune-market1501-r50-from-imagenet`
    """
    from lupctl.core.stages.runs import read_details

    space = open_workspace(home)
    found = read_details(space, find_run(space, run))
    if json:
        children = [child.name for child in found.children]
        print_json("lupctl.run/1", {**asdict(found), "summary": payload(found.summary), "children": children})
        return
    print_table("", ["what", "value"], describe(found, home))
    print_table("", ["file", "size"], [(name, write_size(size)) for name, size in found.files])


def remove_runs(
    runs: RunsArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Removes runs with their checkpoints, features and reports; asks first, and refuses while one is training.

    Examples:

    `lupctl run rm finetune-market1501-r50-from-imagenet`

    `lupctl run rm finetune-market1501-r50-from-imagenet --dry-run`
    """
    from lupctl.core.stages.runs import check_removable, find_children, foreign_files, read_summary, remove_run

    space, progress = open_workspace(home), Progress(quiet=quiet)
    paths = find_runs(space, runs)
    check_removable(space, paths)
    found = [read_summary(path) for path in paths]
    size = sum(run.bytes for run in found)
    facts = {"runs": [str(path) for path in paths], "bytes": size}
    for path in paths:
        children = [child.name for child in find_children(space, path) if child.path not in paths]
        if children:
            progress.say(f"{path}: {', '.join(children)} began or learned from it, and can be used without it")
        for file in foreign_files(path):
            progress.say(f"{file}: not lupctl's; it stays")
    if not json:
        rows = [(run.name, write_state(run), *scores(run), *size_and_age(run)) for run in found]
        title = "would remove" if dry_run else ""
        print_table(title, ["run", "state", "mAP", "rank-1", "size", "age"], rows)
    if not dry_run:
        again = shlex.join(["lupctl", "run", "rm", *runs, *(["--home", str(home)] if home else []), "--yes"])
        ask_to_remove(f"{count_things(len(paths), 'run')}, {write_size(size)}", yes=yes, command=again)
        for path in paths:
            remove_run(path)
            progress.say(f"removed: {path}")
    if json:
        print_json("lupctl.run-rm-plan/1" if dry_run else "lupctl.run-rm/1", facts)


def show_list(runs: "list[RunSummary]") -> None:
    """Prints a table of runs, or two lines for each where their names are too long for one."""
    columns = ["run", "stage", "network", "data", "state", "mAP", "rank-1", "size", "age"]
    rows = [
        (run.name, run.stage, run.network, ", ".join(run.data), write_state(run), *scores(run), *size_and_age(run))
        for run in runs
    ]
    widths = [max(len(str(cell or "-")) for cell in column) + 3 for column in zip(columns, *rows, strict=True)]
    if sum(widths) < (shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST):
        print_table("", columns, rows)
        return
    for run in runs:
        found = [f"{name} {score}" for name, score in zip(("mAP", "rank-1"), scores(run), strict=True) if score]
        what = f"{run.network} on {', '.join(run.data)}" if run.data else run.network
        size, age = size_and_age(run)
        parts = [write_state(run), what, *found, size, f"{age} old"]
        print(f"{run.name}\n  {'; '.join(part for part in parts if part)}")


def payload(run: "RunSummary") -> dict[str, Any]:
    """A run for JSON."""
    changed_at = datetime.fromtimestamp(int(run.changed_at), UTC).isoformat().replace("+00:00", "Z")
    return {**asdict(run), "path": str(run.path), "changed_at": changed_at}


def write_state(run: "RunSummary") -> str:
    """The state of a run in words."""
    of = f" of {run.steps:,}" if run.steps else ""
    if run.state == "running":
        return f"running, step {run.step:,}{of}" if run.step else "running"
    if run.state == "stopped":
        return f"stopped at step {run.step:,}{of}" if run.step else "stopped before it saved anything"
    return "no recipe in it" if run.state == "empty" else run.state


def scores(run: "RunSummary") -> tuple[str | None, str | None]:
    """mAP and rank-1 in per cent."""
    found = (run.scores.get("map"), run.scores.get("rank1"))
    return (
        None if found[0] is None else f"{100 * found[0]:.2f}",
        None if found[1] is None else f"{100 * found[1]:.2f}",
    )


def size_and_age(run: "RunSummary") -> tuple[str, str]:
    """The last two cells of a run."""
    return write_size(run.bytes), write_age(time.time() - run.changed_at)


def describe(found: "RunDetails", home: Path | None) -> list[tuple[str, object]]:
    """The lines of a run."""
    from lupctl.core.recipes.shipped import read_resolved
    from lupctl.core.recipes.words import recipe_words

    run = found.summary
    lines: list[tuple[str, object]] = [("run", run.path), ("state", write_state(run)), ("stage", run.stage)]
    if found.recipe:
        lines += recipe_words(read_resolved(run.path)).items()
    fingerprints = {name.removeprefix("pack:"): text for name, text in found.inputs.items()}
    lines += [("data", f"{name} ({fingerprints.get(name, 'no fingerprint')[:19]})") for name in run.data]
    lines += [
        ("kept by", f"{name.removeprefix('list:')} ({text[:19]})")
        for name, text in found.inputs.items()
        if name.startswith("list:")
    ]
    if run.start:
        own = found.inputs.get("start")
        lines.append(("start", f"{run.start} ({own[:19]})" if own else run.start))
    if run.scores:
        lines.append(
            (
                "scores",
                ", ".join(f"{SCORE_NAMES.get(name, name)} {100 * value:.2f}" for name, value in run.scores.items()),
            )
        )
    lines += [("began or learned from it", f"{child.name} ({write_state(child)})") for child in found.children]
    lines += [("on disk", write_size(run.bytes)), ("age", write_age(time.time() - run.changed_at))]
    command = found.command or None
    if run.state == "stopped" and command:
        return [*lines, ("continue with", hint_to_finish(open_workspace(home), run.path))]
    return [*lines, ("command", command)]
