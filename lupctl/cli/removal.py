"""What the commands that remove things share: the question, and how sizes and ages are written."""

import sys
from typing import Annotated

import typer

from lupctl.core.errors import UsageError

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


def ask_to_remove(things: str, *, yes: bool, command: str) -> None:
    """Asks on a terminal before anything is removed.

    Args:
        things: what would go, and its size.
        yes: it was answered on the command line.
        command: as it is typed with that answer.

    Raises:
        UsageError: there is no terminal to ask on.
        typer.Abort: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"removing {things}: there is no terminal to ask on; nothing was removed", hint=command)
    if not typer.confirm(f"remove {things}?", err=True):
        print("nothing was removed", file=sys.stderr)
        raise typer.Abort


def write_size(size: int) -> str:
    """Bytes in the unit that suits them.

    >>> [write_size(size) for size in (0, 1023, 4096, 5 * 2**20, 3 * 2**40)]
    ['0 B', '1,023 B', '4.0 KiB', '5.0 MiB', '3.0 TiB']
    """
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"


def write_age(seconds: float) -> str:
    """A length of time in the unit that suits it.

    >>> [write_age(seconds) for seconds in (-1, 59, 3599, 90_000, 864_000)]
    ['0 s', '59 s', '59 min', '25 h', '10 d']
    """
    seconds = max(0, int(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 48 * 3600 else f"{seconds // 86400} d"
