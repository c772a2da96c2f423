"""Images that two packs have in common, byte for byte."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError

Read = Callable[[int], bytes]


def shared_rows(
    key: NDArray[np.uint64],
    rows: NDArray[np.int64],
    other_key: NDArray[np.uint64],
    other_rows: NDArray[np.int64],
    *,
    read: Read,
    read_other: Read,
) -> Iterator[int]:
    """The rows of one pack whose images are also among some rows of another, in ascending order.

    Only images with equal keys are read. An image that cannot be read is not shared.

    Args:
        key: (N) of the first pack's images; equal for equal bytes, rarely equal otherwise.
        rows: (n) the rows to look for, ascending.
        other_key: (M) the same of the other pack.
        other_rows: (m) the rows to look among.
        read: the bytes of a row of the first pack.
        read_other: the same for the other.
    """
    wanted = np.unique(key[rows])
    if not len(wanted) or not len(other_rows):
        return
    # The many are looked up among the few: sorting the many would take several times as long.
    found = other_key[other_rows]
    at = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
    candidates = other_rows[wanted[at] == found]
    of_key: dict[int, list[int]] = {}
    for row, value in zip(candidates.tolist(), other_key[candidates].tolist(), strict=True):
        of_key.setdefault(value, []).append(row)
    for row in rows[np.isin(key[rows], other_key[candidates])].tolist():
        if _is_among(read, row, read_other, of_key[int(key[row])]):
            yield row


def _is_among(read: Read, row: int, read_other: Read, others: list[int]) -> bool:
    try:
        encoded = read(row)
    except CorruptImageError:
        return False
    for other in others:
        try:
            if read_other(other) == encoded:
                return True
        except CorruptImageError:
            continue
    return False
