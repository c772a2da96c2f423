"""Ranks of each query's right answers in the gallery, by the Market-1501 rule (Zheng et al. 2015).

Distances come in chunks of queries. Only values are sorted, and the right answers are found by binary search.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import JUNK, SameCamera
from lupctl.core.ranking.metrics.columns import ColumnGroups, Pieces, cut_columns, one_group, pick_width
from lupctl.core.ranking.metrics.labels import ImageLabels, same_person_pairs
from lupctl.core.ranking.metrics.ordering import ranks_in_groups, sort_pieces
from lupctl.core.ranking.metrics.vectors import MIN_ROWS, Scratch, UnitRows, exact_float32
from lupctl.core.system.threads.round_robin import run_round_robin

# Size of one chunk of distances; its sorted copy takes up to `MAX_SLOTS` times as much.
CHUNK_BYTES = 64 << 20

Distances = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class RankedBlock:
    """One chunk of queries in `rank_queries`, as passed to its watchers.

    Args:
        start: number of the first query.
        block: (B, G) distances; infinite where a pair counts neither way.
        row: (P) int64, queries of the right answers, counted from `start`, ascending.
        column: (P) int64, their gallery images.
        rank_in_group: (P) int64, 1-based, of each right answer among the images of its group.
    """

    start: int
    block: Tensor
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    rank_in_group: NDArray[np.int64]


Watcher = Callable[[RankedBlock], None]


@dataclass(frozen=True)
class Ranking:
    """The result of ranking the gallery for each query.

    A query with no right answer left is invalid: NaN in the first three fields, 0 in the others.

    Args:
        ap_step: (Q) float64, average precision as the sum over right answers of i / r_i, divided by their number.
        ap_trapezoid: (Q) float64, the same with precision averaged with that one rank earlier (official Market-1501).
        inp: (Q) float64, number of right answers divided by the rank of the last.
        first_rank: (Q) int64, 1-based rank of the first right answer.
        num_right: (Q) int64, right answers.
    """

    ap_step: NDArray[np.float64]
    ap_trapezoid: NDArray[np.float64]
    inp: NDArray[np.float64]
    first_rank: NDArray[np.int64]
    num_right: NDArray[np.int64]

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """(Q) bool, the queries that have a right answer."""
        return self.num_right > 0


def cosine_distances(queries: UnitRows, gallery: UnitRows) -> Distances:
    """Distances -cos of a range of queries to the gallery, in the form that `rank_queries` takes.

    They order like 2 - 2 cos, the squared distance of unit vectors, and keep values apart that it would round together.
    Each block overwrites the one before.
    """
    scratch = Scratch()

    def distances(start: int, stop: int) -> Tensor:
        return gallery.cosines(-queries.unit(start, stop), scratch=scratch)

    return distances


def rank_queries(
    distances: Distances,
    queries: ImageLabels,
    gallery: ImageLabels,
    *,
    others: Sequence[Distances] = (),
    chunk: int | None = None,
    same_camera: SameCamera = "drop",
    groups: ColumnGroups | None = None,
    watchers: Sequence[Watcher] = (),
    advance: Callable[[int], None] | None = None,
) -> Ranking:
    """Ranks the gallery for every query, a chunk of queries at a time.

    Memory is a (chunk, G) block per device and its sorted copy. Ties keep gallery order. Junk counts neither way, nor
    does the query's person seen by the query's camera; a distractor is never a right answer.

    Args:
        distances: gives (stop - start, G) float32 for the queries from start to stop, smaller is nearer, finite; the
            block is overwritten.
        queries: Q images.
        gallery: G images.
        others: the same as `distances` on other devices; all devices take turns with the chunks.
        chunk: queries at a time; None takes as many as fit `CHUNK_BYTES`.
        same_camera: `keep` counts the query's person seen by the query's camera as a right answer.
        groups: of the gallery's images, for watchers; None for one of them all.
        watchers: called with each chunk in order; they must neither change nor keep it.
        advance: called after each chunk with its number of queries.
    """
    ranges = list(chunk_ranges(len(queries), chunk or pick_chunk(len(gallery))))
    workers = [_chunk_ranker(some, queries, gallery, same_camera, groups) for some in (distances, *others)]
    parts = []
    # The threads of all devices share this setting, so it is set once around them.
    with exact_float32(torch.device("cpu")):
        for part, seen in run_round_robin(workers, ranges):
            for watch in watchers:
                watch(seen)
            parts.append(part)
            if advance is not None:
                advance(len(seen.block))
    return _joined(parts)


def _chunk_ranker(
    distances: Distances,
    queries: ImageLabels,
    gallery: ImageLabels,
    same_camera: SameCamera,
    groups: ColumnGroups | None,
) -> Callable[[int, int], tuple[Ranking, RankedBlock]]:
    junk, scratch = torch.from_numpy(np.flatnonzero(gallery.person == JUNK)), Scratch()
    parts = one_group(len(gallery)) if groups is None else groups

    @cache
    def cut(width: int) -> Pieces:
        return cut_columns(parts, width)

    def rank(start: int, stop: int) -> tuple[Ranking, RankedBlock]:
        row, column = same_person_pairs(queries.person[start:stop], gallery.person)
        is_right = np.ones(len(row), np.bool_)
        if same_camera == "drop":
            is_right = queries.camera[start:stop][row] != gallery.camera[column]
        block = distances(start, stop).contiguous()
        block[:, junk.to(block.device)] = torch.inf
        block[_on(block, row[~is_right]), _on(block, column[~is_right])] = torch.inf
        row, column = row[is_right], column[is_right]
        pieces = cut(pick_width(parts, len(row) / (stop - start)))
        ordered = sort_pieces(block, pieces, scratch=scratch)
        overall, within = ranks_in_groups(block, row, column, ordered=ordered, pieces=pieces)
        seen = RankedBlock(start=start, block=block, row=row, column=column, rank_in_group=within)
        return summarise_ranks(row, overall, stop - start), seen

    return rank


def pick_chunk(num_gallery: int) -> int:
    """Number of queries to rank at a time, so that their distances fit `CHUNK_BYTES`.

    A product of fewer rows than `MIN_ROWS` takes as long as one of `MIN_ROWS`, and each chunk reads the whole gallery:
    up to that number of rows, a chunk may take four times the memory.
    """
    fitting = CHUNK_BYTES // (4 * max(1, num_gallery))
    return max(1, fitting, min(MIN_ROWS, 4 * fitting))


def chunk_ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of `size` that cover `total`; the last may be shorter."""
    for start in range(0, total, size):
        yield start, min(start + size, total)


def summarise_ranks(row: NDArray[np.int64], rank: NDArray[np.int64], num_rows: int) -> Ranking:
    """Both average precisions, INP and first rank of each query from the ranks of its right answers.

    Args:
        row: (P) int64, which query.
        rank: (P) int64, 1-based and distinct within a query; in any order.
        num_rows: Q.

    >>> ranking = summarise_ranks(np.array([0, 0, 0]), np.array([1, 2, 5]), 1)
    >>> print(ranking.ap_step[0] * 15, ranking.ap_trapezoid[0] * 20, ranking.inp[0] * 5)
    13.0 17.0 3.0
    """
    order = np.lexsort((rank, row))
    row, rank = row[order], rank[order]
    num_right = np.bincount(row, minlength=num_rows)
    start = np.cumsum(num_right) - num_right
    position = np.arange(len(row)) - start[row] + 1
    precision = position / rank
    # Precision one rank before the hit; it starts at 1.
    before = np.where(rank == 1, 1.0, (position - 1) / np.maximum(rank - 1, 1))
    valid = num_right > 0
    first, last = start[valid], start[valid] + num_right[valid] - 1
    nothing = np.full(num_rows, np.nan)
    ap_step, ap_trapezoid, inp = nothing.copy(), nothing.copy(), nothing.copy()
    ap_step[valid] = np.bincount(row, precision, num_rows)[valid] / num_right[valid]
    ap_trapezoid[valid] = np.bincount(row, (precision + before) / 2, num_rows)[valid] / num_right[valid]
    inp[valid] = num_right[valid] / rank[last]
    first_rank = np.zeros(num_rows, np.int64)
    first_rank[valid] = rank[first]
    return Ranking(ap_step=ap_step, ap_trapezoid=ap_trapezoid, inp=inp, first_rank=first_rank, num_right=num_right)


def _on(block: Tensor, indices: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(indices).to(block.device)


def _joined(parts: list[Ranking]) -> Ranking:
    empty = summarise_ranks(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    parts = parts or [empty]
    return Ranking(
        ap_step=np.concatenate([part.ap_step for part in parts]),
        ap_trapezoid=np.concatenate([part.ap_trapezoid for part in parts]),
        inp=np.concatenate([part.inp for part in parts]),
        first_rank=np.concatenate([part.first_rank for part in parts]),
        num_right=np.concatenate([part.num_right for part in parts]),
    )
