"""`lupctl doctor`."""

from dataclasses import asdict

import typer

from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.core.workspace import open_workspace


def doctor(
    home: HomeOption = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Shows what this machine has, and what of it would be used.

    Example: `lupctl doctor`
    """
    from lupctl.core.stages.doctor import examine

    findings = examine(open_workspace(home).home)
    if json:
        print_json("lupctl.doctor/1", {"findings": [asdict(finding) for finding in findings]})
    else:
        print_table("", ["what", "found", "used for"], [(item.what, item.found, item.used) for item in findings])
    if any(not finding.is_well for finding in findings):
        raise typer.Exit(3)
