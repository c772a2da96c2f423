"""Several downloads at once, ended cleanly by Ctrl-C and SIGTERM."""

import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from lupctl.core.errors import InterruptedRunError, StoppedError
from lupctl.core.system.jobs.stopping import stop_on_request

Item = TypeVar("Item")
Result = TypeVar("Result")
POLL_S = 0.1


def finish_each(
    function: Callable[[Item], Result], items: Iterable[Item], *, jobs: int, cancel: threading.Event
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Calls `function` for every item in several threads and gives each item with its outcome, first done first.

    After Ctrl-C or SIGTERM `cancel` is set and no new item is begun; what is running ends by itself and is given as
    always, and then the request is raised. Close the generator to stop early.

    Args:
        function: runs in a thread; ends soon, with `StoppedError`, when `cancel` is set.
        items: taken one by one, in order.
        jobs: number of threads.
        cancel: set here, seen by `function`.

    Raises:
        StoppedError: someone asked to stop.
    """
    waiting = iter(items)
    running: dict[Future[Result], Item] = {}
    with ThreadPoolExecutor(jobs) as pool, stop_on_request() as request:
        try:
            while True:
                while len(running) < jobs and not cancel.is_set():
                    item = next(waiting, _NO_MORE)
                    if item is _NO_MORE:
                        break
                    running[pool.submit(function, item)] = item  # type: ignore[arg-type, assignment]
                if not running:
                    break
                done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                if request.wanted:
                    cancel.set()
                for future in done:
                    yield running.pop(future), future
        finally:
            cancel.set()
    if request.wanted:
        kind = InterruptedRunError if request.signal == signal.SIGINT else StoppedError
        raise kind("stopped on request; what was fetched is kept", hint="type the same command again")


_NO_MORE = object()
