"""The columns of a block of distances: in groups that are ranked apart, and in pieces that are sorted fast."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# As many float32 as fill the registers of AVX-512. What is longer numpy 2.4 sorts by an instruction that is slow on
# AMD's Zen 4: 0.26 ms for a row of 15,913, and 0.03 in pieces. With AVX2 it is 0.07 and 0.05.
NARROW: Final = 512
# With more right answers a query than this, few wide pieces are faster: each answer is searched for in every piece.
MANY_RIGHT: Final = 64
WIDE: Final = 4096
# Slots for each column at most.
MAX_SLOTS: Final = 1.5


@dataclass(frozen=True)
class ColumnGroups:
    """Groups of columns; each column is ranked only among those of its group.

    Args:
        group: (G) int64, the group of each column, counted from 0.
        columns: (G) int64, all columns, group after group, ascending within each.
        edge: (C + 1) int64, where each group starts in `columns`, and where the last ends.
    """

    group: NDArray[np.int64]
    columns: NDArray[np.int64]
    edge: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(C) int64, columns of each group."""
        return np.diff(self.edge)

    def members(self, group: int) -> NDArray[np.int64]:
        """The columns of a group, ascending."""
        return self.columns[self.edge[group] : self.edge[group + 1]]


def group_columns(group: NDArray[np.int64]) -> ColumnGroups:
    """Groups from the group number of each column.

    >>> group_columns(np.array([1, 0, 1])).columns.tolist()
    [1, 0, 2]
    """
    edge = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return ColumnGroups(group=group, columns=np.argsort(group, kind="stable"), edge=edge)


def one_group(num_columns: int) -> ColumnGroups:
    """All columns in one group."""
    return group_columns(np.zeros(num_columns, np.int64))


@dataclass(frozen=True)
class Pieces:
    """Columns in S pieces of W slots, each with columns of one group alone; slots left over hold none.

    Args:
        groups: of the columns.
        width: W.
        group: (S) int64, the group of each piece.
        piece: (G) int64, the piece of each column.
        columns: (S * W) int64, the column in each slot, piece after piece; any column in an empty one.
        empty: (E) int64, the empty slots.
    """

    groups: ColumnGroups
    width: int
    group: NDArray[np.int64]
    piece: NDArray[np.int64]
    columns: NDArray[np.int64]
    empty: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.group)


def cut_columns(groups: ColumnGroups, width: int) -> Pieces:
    """Each group's columns in pieces of `width` slots.

    >>> pieces = cut_columns(group_columns(np.array([1, 0, 1, 1])), 2)
    >>> pieces.group.tolist(), pieces.piece.tolist(), pieces.columns.tolist(), pieces.empty.tolist()
    ([0, 1, 1], [1, 0, 1, 2], [1, 0, 0, 2, 3, 0], [1, 5])
    """
    count = -(-groups.sizes // width)
    first = np.cumsum(count) - count
    within = np.arange(len(groups.columns)) - np.repeat(groups.edge[:-1], groups.sizes)
    slot = np.repeat(first, groups.sizes) * width + within
    columns, is_empty = np.zeros(count.sum() * width, np.int64), np.ones(count.sum() * width, np.bool_)
    columns[slot], is_empty[slot] = groups.columns, False
    piece = np.empty_like(groups.columns)
    piece[groups.columns] = slot // width
    return Pieces(
        groups=groups,
        width=width,
        group=np.repeat(np.arange(len(count)), count),
        piece=piece,
        columns=columns,
        empty=np.flatnonzero(is_empty),
    )


def pick_width(groups: ColumnGroups, right_answers: float) -> int:
    """The width of pieces that are fast to sort and to search.

    Args:
        groups: of the columns.
        right_answers: how many a query has, on average.

    Returns:
        a power of two; pieces so wide have at most `MAX_SLOTS` slots for each column.

    >>> pick_width(one_group(16_000), 20), pick_width(one_group(16_000), 200), pick_width(one_group(100), 20)
    (512, 4096, 128)
    """
    widest = NARROW if right_answers <= MANY_RIGHT else WIDE
    width = min(widest, 1 << int(groups.sizes.max(initial=1) - 1).bit_length())
    while _slots(groups, width) > MAX_SLOTS * len(groups.columns):
        width //= 2
    return width


def _slots(groups: ColumnGroups, width: int) -> int:
    return int((-(-groups.sizes // width)).sum()) * width
