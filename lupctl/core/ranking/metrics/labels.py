"""Person and camera of images, and which images show the same person."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK


@dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """Person and camera of N images.

    Args:
        person: (N) int64.
        camera: (N) int16.
    """

    person: NDArray[np.int64]
    camera: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.person)


def same_person_pairs(
    query_person: NDArray[np.int64], gallery_person: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (query, gallery) pairs of the same person, without junk and distractors; by query, then in gallery order.

    Returns:
        (P) int64 query rows, (P) int64 gallery columns.
    """
    order = np.argsort(gallery_person, kind="stable")
    ordered = gallery_person[order]
    first = np.searchsorted(ordered, query_person, side="left")
    count = np.searchsorted(ordered, query_person, side="right") - first
    count[(query_person == JUNK) | (query_person == DISTRACTOR)] = 0
    row = np.repeat(np.arange(len(query_person)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, order[first[row] + within]
