"""Scores of each pair of cameras: queries from one, a gallery of images from the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.columns import group_columns
from lupctl.core.ranking.metrics.ranking import RankedBlock, summarise_ranks


@dataclass(frozen=True)
class CameraScores:
    """Scores by camera of the query (rows) and of the gallery (columns).

    Args:
        query: (A) camera numbers.
        gallery: (C) camera numbers.
        queries: (A, C) int64, queries with a right answer in that gallery.
        map: (A, C) float64, their mean average precision (step rule) in that gallery; NaN if there are none.
        rank1: (A, C) float64, share of them with a right answer first.
    """

    query: NDArray[np.int64]
    gallery: NDArray[np.int64]
    queries: NDArray[np.int64]
    map: NDArray[np.float64]
    rank1: NDArray[np.float64]


class CameraCounter:
    """Scores the images of each camera separately; a watcher of `rank_queries`, which ranks them by `groups`.

    Args:
        query_camera: (Q).
        gallery_camera: (G).

    Attributes:
        groups: of the gallery's images, by camera.
    """

    def __init__(self, query_camera: NDArray[np.int16], gallery_camera: NDArray[np.int16]) -> None:
        self._query, self._row = np.unique(query_camera, return_inverse=True)
        self._gallery, self._column = np.unique(gallery_camera, return_inverse=True)
        self.groups = group_columns(self._column)
        shape = (len(self._query), len(self._gallery))
        self._queries = np.zeros(shape, np.int64)
        self._ap, self._first = np.zeros(shape), np.zeros(shape)

    def __call__(self, seen: RankedBlock) -> None:
        """Adds one chunk."""
        camera, size = self._column[seen.column], len(seen.block)
        # A ranking of each camera's images for each query, camera after camera.
        ranking = summarise_ranks(camera * size + seen.row, seen.rank_in_group, len(self._gallery) * size)
        valid = np.flatnonzero(ranking.is_valid)
        pair = self._row[seen.start + valid % size] * len(self._gallery) + valid // size
        self._queries += self._sums(pair)
        self._ap += self._sums(pair, ranking.ap_step[valid])
        self._first += self._sums(pair, ranking.first_rank[valid] == 1)

    def _sums(self, pair: NDArray[np.int64], values: NDArray[Any] | None = None) -> NDArray[Any]:
        """Sums by pair of cameras, (A, C); of ones where no values are given."""
        return np.bincount(pair, values, self._queries.size).reshape(self._queries.shape)

    def scores(self) -> CameraScores:
        """The scores over all chunks."""
        with np.errstate(invalid="ignore"):
            return CameraScores(
                query=self._query.astype(np.int64),
                gallery=self._gallery.astype(np.int64),
                queries=self._queries,
                map=self._ap / self._queries,
                rank1=self._first / self._queries,
            )
