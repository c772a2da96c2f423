"""What a loaded network answers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Match:
    """Whether two images show the same person, by the threshold of a report; true and false like the answer itself.

    Args:
        is_same: the answer.
        similarity: cosine of the two features.
        threshold: from which similarity on the answer is yes.
        false_matches: share of the report's pairs of different persons for which the answer is yes.
        missed: share of its pairs of the same person for which the answer is no.
        report: the file.
        dataset: that the report is of.
    """

    is_same: bool
    similarity: float
    threshold: float
    false_matches: float
    missed: float
    report: str
    dataset: str

    def __bool__(self) -> bool:
        return self.is_same


@dataclass(frozen=True)
class Nearest:
    """The K nearest images of a gallery for each of Q queries, nearest first; equal ones in the gallery's order.

    Args:
        similarity: (Q, K) float32 cosines.
        row: (Q, K) int64 rows of the gallery.
        name: (Q, K) str, names in the gallery's dataset; None, as the next two, for a gallery that is an array.
        person, camera: (Q, K) integers, as in the dataset.
    """

    similarity: NDArray[np.float32]
    row: NDArray[np.int64]
    name: NDArray[Any] | None = None
    person: NDArray[np.int64] | None = None
    camera: NDArray[np.int64] | None = None
