"""Training classes from the person numbers of one or more packs, and numbers for their cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of N images of one or more packs.

    Args:
        label: (N) int64, 0 to C - 1, the packs one after the other; -1 where the person is unknown.
        persons: for each pack, the person numbers of its classes, ascending; C in all.
    """

    label: NDArray[np.int64]
    persons: tuple[NDArray[np.int64], ...]

    @property
    def num_classes(self) -> int:
        """C."""
        return sum(map(len, self.persons))


def label_persons(persons: Sequence[NDArray[np.int64]]) -> Labels:
    """Classes without gaps for the person numbers of several packs' images.

    Classes follow the order of the packs, then of the numbers; persons of different packs are always different.

    Args:
        persons: for each pack, the (n) persons of its images; negative where the person is unknown.

    >>> labels = label_persons([np.array([7, 2, -1, 7]), np.array([2])])
    >>> labels.label.tolist(), [pack.tolist() for pack in labels.persons]
    ([1, 0, -1, 1, 2], [[2, 7], [2]])
    """
    label, known = number_known(persons)
    return Labels(label=label, persons=known)


def number_known(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
    """As `number_apart` for values that may be unknown: negative ones get -1 and are not among the values.

    >>> numbers, values = number_known([np.array([7, 2, -1]), np.array([2])])
    >>> numbers.tolist(), [pack.tolist() for pack in values]
    ([1, 0, -1, 2], [[2, 7], [2]])
    """
    numbers, known = number_apart([column[column >= 0] for column in columns])
    found = np.full(sum(map(len, columns)), -1, np.int64)
    if columns:
        found[np.concatenate(columns) >= 0] = numbers
    return found, known


def number_apart(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
    """Numbers from 0 for the values in several packs' columns; equal values of different packs get different numbers.

    Args:
        columns: for each pack, (n) integers.

    Returns:
        (N) the numbers, the packs one after the other; and for each pack the values they stand for, ascending.
    """
    numbers, values, first = [np.empty(0, np.int64)], list[NDArray[Any]](), 0
    for column in columns:
        different, number = np.unique(column, return_inverse=True)
        numbers.append(number.reshape(-1).astype(np.int64) + first)
        values.append(different)
        first += len(different)
    return np.concatenate(numbers), tuple(values)
