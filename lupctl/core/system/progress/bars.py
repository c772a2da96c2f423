"""Progress bars on a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from lupctl.core.system.printing import as_drawn, one_line


class _RateColumn(ProgressColumn):
    """Items per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")


class Bar:
    """A rich bar with the interface of `lupctl.core.system.progress.lines.Task`."""

    def __init__(self, progress: Progress, task: int, total: int) -> None:
        self._progress = progress
        self._task = task
        self._total = total

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Advances the bar by `count` items and shows `note` after it."""
        from rich.progress import TaskID

        self._progress.update(TaskID(self._task), advance=count, note=one_line(note))

    def grow(self, count: int) -> None:
        """Makes the bar `count` items longer."""
        from rich.progress import TaskID

        self._total += count
        self._progress.update(TaskID(self._task), total=self._total)


@contextmanager
def open_bar(title: str, *, total: int, unit: str, done: int) -> Iterator[Bar]:
    """A bar on stderr that disappears when its work is over."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(file=as_drawn(sys.stderr), emoji=False), transient=True) as progress:
        yield Bar(progress, progress.add_task(one_line(title), total=total, completed=done, note=""), total)
