"""The same work on several devices in turn."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_round_robin(
    workers: Sequence[Callable[[int, int], Result]], ranges: Sequence[tuple[int, int]]
) -> Iterator[Result]:
    """The results for all ranges in their order; range i goes to worker i modulo their number.

    A worker starts a range only after its previous result has been consumed, so it may use the same memory again. All
    workers run at once, each in a thread; a single one runs in the caller's.

    Args:
        workers: one per device, at least one.
        ranges: what to work on.

    Raises:
        Exception: whatever a worker raises, when its range's turn comes.
    """
    if len(workers) == 1:
        yield from (workers[0](start, stop) for start, stop in ranges)
        return
    with ThreadPoolExecutor(len(workers)) as pool:
        waiting = deque(pool.submit(worker, *some) for worker, some in zip(workers, ranges, strict=False))
        for following in range(len(workers), len(ranges) + len(workers)):
            if not waiting:
                return
            yield waiting.popleft().result()
            if following < len(ranges):
                waiting.append(pool.submit(workers[following % len(workers)], *ranges[following]))
