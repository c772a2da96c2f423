"""Lines and bars that a stage shows while it works. Results never pass through here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from lupctl.core.system.printing import one_line


class Task(Protocol):
    """One bar, or nothing if stderr is not a terminal."""

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Advances by `count` items; `note` replaces the text at the end of the bar."""

    def grow(self, count: int) -> None:
        """Adds `count` items to the total."""


class _Silent:
    def advance(self, count: int = 1, *, note: str = "") -> None:
        return

    def grow(self, count: int) -> None:
        return


class Progress:
    """Lines and bars on stderr.

    Bars appear only where stderr is a terminal; lines always, unless `quiet`.

    Args:
        quiet: prints warnings only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, line: str) -> None:
        """Prints one line."""
        if not self.quiet:
            print(one_line(line), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Prints one line that the user should not miss, `quiet` or not."""
        print(f"warning: {one_line(line)}", file=sys.stderr, flush=True)

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        """A bar over `total` items with rate and time left.

        Args:
            title: what is done, three words or so.
            total: number of items.
            unit: plural noun of an item, for the rate.
            done: items that were done before, as after a resume.
        """
        if self.quiet or not sys.stderr.isatty():
            yield _Silent()
            return
        from lupctl.core.system.progress.bars import open_bar  # rich is slow to import and needed on a terminal only

        with open_bar(title, total=total, unit=unit, done=done) as bar:
            yield bar
