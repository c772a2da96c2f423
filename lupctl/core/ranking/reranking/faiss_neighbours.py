"""The nearest rows of every row of a pool, and the cosine of the farthest, by exact faiss searches."""

from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from lupctl.core.choices import NeighbourSearch
from lupctl.core.errors import UsageError
from lupctl.core.ranking.metrics.ranking import chunk_ranges, pick_chunk
from lupctl.core.ranking.metrics.vectors import Scratch, UnitRows
from lupctl.core.ranking.reranking.faiss_gpu import MOST_ON_GPU, gpu_of, move_index, room_on
from lupctl.core.ranking.reranking.neighbours import Neighbours, nearest_columns
from lupctl.core.system.threads.round_robin import run_round_robin

# Memory for the unit vectors of one index; a larger pool is searched part by part.
INDEX_BYTES = 256 << 20
# Memory for the unit vectors that are searched for at once.
QUERY_BYTES = 32 << 20
# Rounding separates equal products by less: faiss was off by up to 4e-7 in 2,048 dimensions, either way.
CLOSE = 2e-6

Found = tuple[Tensor, Tensor, Tensor]
Searcher = Callable[[int, int], Found]


def pick_search(wanted: NeighbourSearch | None, devices: Sequence[torch.device], *, count: int) -> NeighbourSearch:
    """Picks the neighbour search: by default faiss if it can use the GPUs that compute, else the exact pass.

    Args:
        wanted: the requested search; None takes the default.
        devices: where distances are computed.
        count: K, including the row itself.

    Raises:
        UsageError: faiss was requested, but gives fewer neighbours on a GPU.
    """
    on_gpus = all(gpu_of(device) is not None for device in devices)
    fits = count < MOST_ON_GPU
    if wanted == "faiss" and on_gpus and not fits:
        raise UsageError(
            f"faiss finds at most {MOST_ON_GPU - 1:,} neighbours on a GPU, but {count:,} are needed",
            hint="--neighbours exact",
        )
    return wanted or ("faiss" if on_gpus and fits else "exact")


def find_neighbours_by_faiss(
    pool: UnitRows,
    *,
    count: int,
    others: Sequence[UnitRows] = (),
    chunk: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    """The result of `find_neighbours`, by two searches: for the nearest rows, and for the one nearest to the opposite.

    faiss keeps an arbitrary one of several rows at the same distance, and rounds copies of an image apart. Rows with
    two neighbours closer together than its rounding are therefore searched again by our own pass, so that equal cosines
    keep the order of the pool here too. Only rounding remains: cosines differ in the last bits, and with the number of
    threads.

    Args:
        pool: N rows.
        count: K, cut to N.
        others: the same rows on other devices; all devices take turns with the chunks.
        chunk: rows searched for at a time.
        advance: called with the number of rows done.

    Returns:
        On the device of `pool`. The search also takes an index of `INDEX_BYTES` per device.
    """
    count = min(count, len(pool))
    rows = max(1, INDEX_BYTES // (4 * pool.dimension))
    parts = list(chunk_ranges(len(pool), rows))
    ranges = list(chunk_ranges(len(pool), chunk or max(1, QUERY_BYTES // (4 * pool.dimension))))
    best = _nothing_found(pool)
    searched = 0
    for first, last in parts:
        workers = [_part_searcher(one, first, last, count + 1) for one in (pool, *others)]
        found = []
        for part in run_round_robin(workers, ranges):
            found.append([column.to(pool.device) for column in part])
            searched += len(part[0])
            if advance is not None:
                # Count whole rows: a row is done when all parts of the pool have been searched for it.
                advance(searched // len(parts) - (searched - len(part[0])) // len(parts))
        best = _merged(best, *(torch.cat(column) for column in zip(*found, strict=True)), count=count + 1)
    return _settled(pool, *best, count=count)


def _part_searcher(pool: UnitRows, first: int, last: int, count: int) -> Searcher:
    """A search among the rows from `first` to `last`, on the pool's GPU if faiss can use it."""
    index: Any = faiss.IndexFlatIP(pool.dimension)
    for start, stop in pool.blocks(first, last):
        index.add(pool.unit(start, stop).cpu().numpy())
    number = gpu_of(pool.device)
    if number is not None:
        index = move_index(index, number)

    def search(start: int, stop: int) -> Found:
        units = pool.unit(start, stop).cpu().numpy()
        nearest, row = index.search(units, min(count, last - first))
        opposite, _ = index.search(np.negative(units, out=units), 1)
        return torch.from_numpy(nearest), torch.from_numpy(row + first), torch.from_numpy(-opposite[:, 0])

    def search_on_gpu(start: int, stop: int) -> Found:
        with room_on(number or 0, last - first):
            return search(start, stop)

    return search if number is None else search_on_gpu


def _nothing_found(pool: UnitRows) -> Found:
    cosine = torch.zeros(len(pool), 0, device=pool.device)
    return cosine, cosine.long(), torch.full((len(pool),), torch.inf, device=pool.device)


def _merged(best: Found, cosine: Tensor, row: Tensor, least: Tensor, *, count: int) -> Found:
    """The `count` nearest of what was found before and what is found in another part of the pool."""
    both = torch.cat([best[0], cosine], dim=1), torch.cat([best[1], row], dim=1)
    value, position = nearest_columns(both[0], min(count, both[0].shape[1]))
    return value, both[1].gather(1, position), torch.minimum(best[2], least)


def _settled(pool: UnitRows, cosine: Tensor, row: Tensor, least: Tensor, *, count: int) -> Neighbours:
    """The first `count` of the (N, count + 1) found; rows in doubtful order are searched again by our own pass."""
    doubtful = torch.nonzero((cosine[:, :-1] - cosine[:, 1:] < CLOSE).any(dim=1))[:, 0]
    cosine, row = cosine[:, :count].contiguous(), row[:, :count].contiguous()
    scratch = Scratch()
    for start, stop in chunk_ranges(len(doubtful), pick_chunk(len(pool))):
        some = doubtful[start:stop]
        block = pool.cosines(pool.unit_at(some), scratch=scratch)
        cosine[some], row[some] = nearest_columns(block, count)
    return Neighbours(index=row, cosine=cosine, least=least)


def estimate_index_bytes(num_pool: int, dimension: int) -> int:
    """Upper estimate of the memory of `find_neighbours_by_faiss` besides its result: index, queries, one block."""
    return min(INDEX_BYTES, 4 * num_pool * dimension) + 3 * QUERY_BYTES
