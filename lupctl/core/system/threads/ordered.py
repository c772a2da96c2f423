"""Applying a function to many items in several threads, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lupctl.core.system.threads.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed to a thread at once: this costs about 50 us, as much as decoding a third of a small image.
CHUNK_ITEMS = 16
MOST_WORKERS = 16


def pick_workers(asked: int | None = None) -> int:
    """The number of threads: as requested, else one per core this process may use, at most 16."""
    if asked is not None:
        return max(asked, 1)
    return min(usable_cores(), MOST_WORKERS)


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, at_once: int = CHUNK_ITEMS
) -> Generator[Result, None, None]:
    """The results of `function` for each item, in the items' order.

    At most `32 * workers + 48` results wait at any time, whatever the number of items. A caller that may stop before
    the last result closes the generator (`contextlib.closing`): the garbage collector could close it from one of its
    own threads, which would then wait for itself.

    Args:
        function: runs in several threads at once; pays off where it releases the interpreter lock.
        items: what to work on.
        workers: number of threads, 1 or more.
        at_once: items handed to a thread at once; fewer where an item takes long.

    Raises:
        Exception: whatever `function` raises, when the item's turn comes.
    """

    def run(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + at_once]]

    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(items), at_once):
                waiting.append(pool.submit(run, start))
                if len(waiting) > 2 * workers + 2:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
