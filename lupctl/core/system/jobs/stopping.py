"""Requests to stop: noticed between steps, or chunks, never inside one; at once where nothing can be continued."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lupctl.core.errors import InterruptedRunError, StoppedError

Handler = Callable[[int, FrameType | None], None]
# Handlers of the blocks of `stop_at_once` that are running.
_AT_ONCE: list[Handler] = []


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

    def nothing_written(self, path: Path) -> StoppedError:
        """What to raise if nothing is saved.

        Args:
            path: what would have been written.
        """
        kind = InterruptedRunError if self.signal == signal.SIGINT else StoppedError
        return kind(f"{path}: not written, stopped on request", hint="type the same command again")


class _StopNow(BaseException):
    """Ends a block from inside; no `Exception`, which libraries take for a reason to try another way."""


@contextmanager
def stop_on_request() -> Iterator[StopRequest]:
    """Collects Ctrl-C and SIGTERM for the length of a loop.

    One that came too late for the loop still ends the `stop_at_once` that it is in.
    """
    request = StopRequest()
    with _handled_by(request.note):
        yield request
    if request.signal is not None and (outer := signal.getsignal(request.signal)) in _AT_ONCE:
        assert callable(outer)
        outer(request.signal, None)


@contextmanager
def never_stop() -> Iterator[None]:
    """Ignores Ctrl-C and SIGTERM in a block that is short, and done as a whole."""
    with _handled_by(lambda number, frame: None):
        yield


@contextmanager
def stop_at_once(path: Path) -> Iterator[StopRequest]:
    """Ends a block on Ctrl-C or SIGTERM by an exception, so that its temporary files are removed.

    Args:
        path: what the block writes.

    Raises:
        StoppedError: somebody asked to stop.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        is_first = not request.wanted
        request.note(number, frame)
        if is_first:  # the next ones would come while files are removed
            raise _StopNow

    _AT_ONCE.append(note)
    try:
        with _handled_by(note):
            yield request
    except StoppedError:
        raise  # has its line already
    except BaseException as error:
        if not request.wanted:
            raise
        raise request.nothing_written(path) from error
    finally:
        _AT_ONCE.remove(note)


@contextmanager
def _handled_by(note: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
