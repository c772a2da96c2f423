"""Requests to stop: noticed between steps, or chunks, never inside one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lupctl.core.errors import InterruptedRunError, StoppedError


class StopRequest:
    """Whether someone asked this process to stop, and how."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler; a second Ctrl-C stops at once."""
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def wanted(self) -> bool:
        """Whether to stop after this step."""
        return self.signal is not None

    def error(self, done: int, total: int, *, unit: str = "step", work: str = "run") -> StoppedError:
        """What to raise once the state is saved.

        Args:
            done, total: units that are done, of how many.
            unit: of the work.
            work: what was stopped.
        """
        kind = InterruptedRunError if self.signal == signal.SIGINT else StoppedError
        return kind(
            f"stopped on request after {unit} {done} of {total}; the {work} can be continued",
            hint="type the same command again",
        )


@contextmanager
def stop_on_request() -> Iterator[StopRequest]:
    """Collects Ctrl-C and SIGTERM for the length of a loop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
