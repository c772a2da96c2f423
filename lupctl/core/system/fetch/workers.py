"""Several downloads at once, stopped cleanly by Ctrl-C and SIGTERM."""

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
    """Call `function` for every item in several threads and yield each item with its outcome as it finishes.

    After Ctrl-C or SIGTERM, `cancel` is set and no new item is started; running items finish and are yielded as usual,
    and then the error is raised. Close the generator to stop early.

    Args:
        function: runs in a thread; stops soon, with `StoppedError`, when `cancel` is set.
        items: taken one by one, in order.
        jobs: number of threads.
        cancel: set here, checked by `function`.

    Raises:
        StoppedError: on request.
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
