"""`lupctl doctor`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.core.flows.machine.exercise import exercise, raise_failed
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.exercise.check import Check

ExerciseOption = Annotated[
    bool,
    typer.Option(
        "--exercise",
        help="Try it all for a minute: trunks in float32 and bf16, attention, torch.compile, messages between devices, "
        "search, decoding; exit with 1 if something is wrong.",
    ),
]


def doctor(
    do_exercise: ExerciseOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows what this machine has, and what of it would be used.

    Examples:

    `lupctl doctor`

    `lupctl doctor --exercise`
    """
    from lupctl.core.stages.doctor import examine

    findings = examine(open_workspace(home).home)
    checks = exercise(Progress(quiet=quiet)) if do_exercise else None
    if json:
        found: dict[str, Any] = {"findings": [asdict(finding) for finding in findings]}
        if checks is not None:
            found["checks"] = [asdict(check) for check in checks]
        print_json("lupctl.doctor/1", found)
    else:
        print_table("", ["what", "found", "used for"], [(item.what, item.found, item.used) for item in findings])
        if checks is not None:
            show_checks(checks)
    raise_failed(checks or [])
    if any(not finding.is_well for finding in findings):
        raise typer.Exit(3)


def show_checks(checks: "list[Check]") -> None:
    """Prints a row for each check."""
    rows = [(check.what, check.status, check.result, check.figure) for check in checks]
    print_table("exercise", ["what", "is", "result", "figure"], rows)
