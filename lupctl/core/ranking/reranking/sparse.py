"""Matrices that are mostly zero, as rows of (column, value) pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Entries expanded at once; about 32 bytes each while they are sorted.
ENTRIES = 1 << 21


@dataclass(frozen=True)
class SparseRows:
    """An (N, M) matrix.

    Args:
        start: (N + 1) int64; row i has the entries from `start[i]` to `start[i + 1]`.
        column: (P) int32, ascending within a row.
        value: (P) float32.
        width: M.
    """

    start: NDArray[np.int64]
    column: NDArray[np.int32]
    value: NDArray[np.float32]
    width: int

    def __len__(self) -> int:
        return len(self.start) - 1

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of entries of each of (K) rows."""
        return self.start[rows + 1] - self.start[rows]

    def entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the entries of (K) rows, one row after the other.

        Returns:
            (P) int64 position in `rows`, (P) int64 position in `column` and `value`.
        """
        count = self.counts(rows)
        which = np.repeat(np.arange(len(rows)), count)
        return which, np.arange(len(which)) + (self.start[rows] - (np.cumsum(count) - count))[which]

    def transposed(self, rows: range) -> "SparseRows":
        """The transpose of a range of rows, numbered from 0: row m lists those in which column m is not zero."""
        lower, upper = self.start[rows.start], self.start[rows.stop]
        column = self.column[lower:upper]
        order = np.argsort(column, kind="stable")
        row = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(self.start[rows.start : rows.stop + 1]))
        return SparseRows(
            start=_starts(np.bincount(column, minlength=self.width)),
            column=row[order],
            value=self.value[lower:upper][order],
            width=len(rows),
        )


def sparse_rows(
    row: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.floating], *, shape: tuple[int, int]
) -> SparseRows:
    """Rows from (P) triples that are sorted by row, then by column, without repetition."""
    return SparseRows(
        start=_starts(np.bincount(row, minlength=shape[0])),
        column=column.astype(np.int32),
        value=value.astype(np.float32),
        width=shape[1],
    )


def mean_rows(matrix: SparseRows, groups: NDArray[np.int64]) -> SparseRows:
    """Row i of the result is the mean of the rows `groups[i]` of the matrix.

    Args:
        matrix: (N, M).
        groups: (N, K) int64 row numbers.
    """
    parts = []
    count = matrix.counts(groups.ravel()).reshape(groups.shape).sum(axis=1)
    for start, stop in split_by_weight(count, ENTRIES):
        which, position = matrix.entries(groups[start:stop].ravel())
        key = (which // groups.shape[1]) * matrix.width + matrix.column[position]
        unique, inverse = np.unique(key, return_inverse=True)
        total = np.bincount(inverse, matrix.value[position], len(unique)) / groups.shape[1]
        parts.append(
            (unique // matrix.width + start, (unique % matrix.width).astype(np.int32), total.astype(np.float32))
        )
    row, column, value = (np.concatenate(list(some)) for some in zip(*parts, strict=True))
    return SparseRows(
        start=_starts(np.bincount(row, minlength=len(groups))), column=column, value=value, width=matrix.width
    )


def sum_of_minima(matrix: SparseRows, rows: NDArray[np.int64], inverted: SparseRows) -> NDArray[np.float64]:
    """sum over m of min(V(i, m), V(j, m)) for some rows i and all rows j of an inverted index.

    Only pairs of rows that share a column are visited.

    Args:
        matrix: V, (N, M).
        rows: (B) int64, the i.
        inverted: `transposed` of the range of rows j, (M, G).

    Returns:
        (B, G) float64.
    """
    result = np.zeros((len(rows), inverted.width))
    which, position = matrix.entries(rows)
    column, value = matrix.column[position].astype(np.int64), matrix.value[position]
    for start, stop in split_by_weight(inverted.counts(column), ENTRIES):
        first, last = which[start], which[stop - 1] + 1
        met, entry = inverted.entries(column[start:stop])
        smaller = np.minimum(value[start:stop][met], inverted.value[entry])
        target = (which[start:stop][met] - first) * inverted.width + inverted.column[entry]
        result[first:last] += np.bincount(target, smaller, (last - first) * inverted.width).reshape(-1, inverted.width)
    return result


def split_by_weight(weight: NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose weights sum to at most `limit`; a heavier item gets its own range.

    >>> list(split_by_weight(np.array([1, 2, 9, 1]), 3))
    [(0, 2), (2, 3), (3, 4)]
    """
    total = np.concatenate([[0], np.cumsum(weight)])
    start = 0
    while start < len(weight):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + limit, side="right")) - 1)
        yield start, stop
        start = stop


def _starts(count: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
