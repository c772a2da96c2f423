"""Scores of each pair of cameras: queries of one, a gallery of the images of another."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.metrics.ranking import RankedBlock, ranks_of, sorted_values, summarise_ranks
from lupctl.core.metrics.vectors import Scratch


@dataclass(frozen=True)
class CameraScores:
    """Scores by camera of the query (rows) and of the gallery (columns).

    Args:
        query: (A) camera numbers.
        gallery: (C) camera numbers.
        queries: (A, C) int64, queries with a right answer there.
        map: (A, C) float64, their mean average precision (step rule) among images of that camera alone; NaN: none.
        rank1: (A, C) float64, share of them with a right answer first.
    """

    query: NDArray[np.int64]
    gallery: NDArray[np.int64]
    queries: NDArray[np.int64]
    map: NDArray[np.float64]
    rank1: NDArray[np.float64]


class CameraCounter:
    """Ranks the images of each camera by themselves, as a watcher of `rank_queries`.

    Args:
        query_camera: (Q).
        gallery_camera: (G).
    """

    def __init__(self, query_camera: NDArray[np.int16], gallery_camera: NDArray[np.int16]) -> None:
        self._query, self._row = np.unique(query_camera, return_inverse=True)
        self._gallery, self._column = np.unique(gallery_camera, return_inverse=True)
        self._columns = [np.flatnonzero(self._column == which) for which in range(len(self._gallery))]
        # Place of each gallery image among those of its camera.
        self._place = np.zeros(len(gallery_camera), np.int64)
        for columns in self._columns:
            self._place[columns] = np.arange(len(columns))
        self._own, self._ordered = Scratch(), Scratch()
        shape = (len(self._query), len(self._gallery))
        self._queries = np.zeros(shape, np.int64)
        self._ap, self._first = np.zeros(shape), np.zeros(shape)

    def __call__(self, seen: RankedBlock) -> None:
        """Adds one chunk."""
        where = self._column[seen.column]
        for which, columns in enumerate(self._columns):
            right = where == which
            if not right.any():
                continue
            device = seen.block.device
            block = self._own.take((len(seen.block), len(columns)), device)
            torch.index_select(seen.block, 1, torch.from_numpy(columns).to(device), out=block)
            row, place = seen.row[right], self._place[seen.column[right]]
            rank = ranks_of(block, row, place, ordered=sorted_values(block, scratch=self._ordered))
            ranking = summarise_ranks(row, rank, len(block))
            valid = np.flatnonzero(ranking.is_valid)
            query = self._row[seen.start + valid]
            size = len(self._query)
            self._queries[:, which] += np.bincount(query, minlength=size)
            self._ap[:, which] += np.bincount(query, ranking.ap_step[valid], size)
            self._first[:, which] += np.bincount(query, ranking.first_rank[valid] == 1, size)

    def scores(self) -> CameraScores:
        """What has been counted."""
        with np.errstate(invalid="ignore"):
            return CameraScores(
                query=self._query.astype(np.int64),
                gallery=self._gallery.astype(np.int64),
                queries=self._queries,
                map=self._ap / self._queries,
                rank1=self._first / self._queries,
            )
