"""The same work on several devices, which take turns."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_round_robin(
    workers: Sequence[Callable[[int, int], Result]], ranges: Sequence[tuple[int, int]]
) -> Iterator[Result]:
    """The results for all ranges in their order; range i is worked on by worker i modulo their number.

    A worker begins a range only when its last result has been dealt with, so it may use the same memory again. All
    workers run at once, each in a thread; one alone runs in the caller's.

    Args:
        workers: one a device, at least one.
        ranges: what to work on.

    Raises:
        Exception: whatever a worker raises, at the range's place.
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
