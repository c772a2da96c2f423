"""Work on the rows of an array in the threads that torch would use."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

Made = TypeVar("Made")


def map_row_ranges(num_rows: int, work: Callable[[int, int], Made]) -> list[Made]:
    """What `work` makes of each of a few ranges of rows, in order; numpy lets them run in parallel.

    Args:
        num_rows: how many rows there are.
        work: is given the first row of a range and the one after its last.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, num_rows)]
    edges = np.linspace(0, num_rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(work, *some) for some in itertools.pairwise(edges)]]
