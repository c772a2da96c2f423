"""Output of a command: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lupctl.core.errors import LupError
from lupctl.core.system.printing import as_drawn, one_line, visible

# A path of the system has at most so many bytes.
MOST_PATH = 4_096
MOST_IN_CELL = 1_000
# What a person calls the scores that a run or a report keeps.
SCORE_NAMES = {"map": "mAP", "map_official": "mAP official", "minp": "mINP", "rank1": "rank-1"}
# And the shares that a run with noisy labels keeps.
LABEL_NAMES = {"corrected": "corrected", "agreement": "agreement", "purity_given": "purity given", "purity": "purity"}

_debug = False


def show_tracebacks(wanted: bool) -> bool:
    """Remembers `--debug`; errors then come with their traceback."""
    global _debug
    _debug = _debug or wanted
    return wanted


def tracebacks_wanted() -> bool:
    """Whether `--debug` was given."""
    return _debug


def print_json(schema: str, payload: Mapping[str, object]) -> None:
    """Prints one JSON object with its schema name first."""
    print(json.dumps({"schema": schema, **payload}, indent=2, ensure_ascii=False, default=str))


def print_path(path: Path) -> None:
    """Prints the path of the result."""
    print(one_line(str(path), most=MOST_PATH))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, note: str = "") -> None:
    """Prints a table; columns of numbers are right-aligned.

    If stdout is not a terminal, the table keeps its full width, so that nothing is cut off in a log.

    Args:
        title: above it.
        columns: their names.
        rows: one value per column.
        note: lines below it, each printed as one line, however long.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=one_line(title) or None, box=box.SIMPLE_HEAD, title_justify="left")
    cells = [[_cell(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        table.add_column(one_line(column), justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        table.add_row(*line)
    width = None if sys.stdout.isatty() else 160
    console = Console(file=as_drawn(sys.stdout), width=width, highlight=False, markup=False, emoji=False)
    console.print(table)
    if note:
        console.print(visible(note), soft_wrap=True)


def print_plan(schema: str, title: str, plan: Mapping[str, object], *, json: bool) -> None:
    """Prints what a command would do."""
    if json:
        print_json(schema, plan)
        return
    rows = []
    for key, value in plan.items():
        name = key.removesuffix("_bytes").replace("_", " ")
        shown = f"{value / 2**20:,.0f} MiB" if key.endswith("_bytes") and isinstance(value, int) else value
        rows.append((name, ", ".join(map(str, shown)) if isinstance(shown, list) else as_text(shown)))
    print_table(title, ["what", "value"], rows)


def as_text(value: object) -> object:
    """A value of a record in one cell: tables as words, long lists cut."""
    match value:
        case dict():
            return ", ".join(f"{key} {as_text(inner)}" for key, inner in value.items())
        case list() if len(value) > 4:
            return f"{len(value)}: {', '.join(map(str, value[:4]))}, …"
        case list():
            return ", ".join(str(as_text(inner)) for inner in value)
        case _:
            return value


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.replace(".", "", 1).lstrip("+-").isdigit()
    return isinstance(value, int | float)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case _:
            return one_line(str(value), most=MOST_IN_CELL)


def print_error(error: LupError) -> None:
    """Prints an error as two lines on stderr."""
    # Several failures at once are a line each.
    message = "\n  ".join(map(one_line, error.message.split("\n  ")))
    print(f"error: {message}\nhint: {one_line(error.hint)}", file=sys.stderr)
