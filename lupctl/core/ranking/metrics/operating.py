"""Error rates of a threshold: "the same person if the distance is at most t"."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.pairs import EDGES, PairCounts

WANTED_FPR = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates on some pairs.

    Args:
        threshold: cosine distance 1 - cos, a multiple of 0.001; at most this means the same person.
        fpr: share of the different-person pairs that are taken for the same person, the false match rate.
        tpr: share of the same-person pairs that are recognised; 1 - tpr is the false non-match rate.
    """

    threshold: float
    fpr: float
    tpr: float


@dataclass(frozen=True)
class Calibration:
    """A threshold chosen on the pairs of one half of the persons and measured on those of the other.

    Args:
        wanted_fpr: the requested false positive rate; None if both error rates were to be equal.
        chosen: the threshold on the half it was chosen on.
        held_out: the same threshold on the other half.
        held_out_same, held_out_different: pairs of the other half.
    """

    wanted_fpr: float | None
    chosen: OperatingPoint
    held_out: OperatingPoint
    held_out_same: int
    held_out_different: int


def point_at(index: int, same: NDArray[np.int64], different: NDArray[np.int64]) -> OperatingPoint:
    """The operating point at one edge of (2001) cumulative counts."""
    return OperatingPoint(
        threshold=round(float(EDGES[index]), 3),
        fpr=float(different[index] / different[-1]),
        tpr=float(same[index] / same[-1]),
    )


def point_at_fpr(same: NDArray[np.int64], different: NDArray[np.int64], wanted: float) -> OperatingPoint | None:
    """The largest threshold whose false positive rate is at most `wanted`.

    None if there are too few different-person pairs for the rate to amount to one pair, or no threshold is that strict.
    """
    if same[-1] == 0 or different[-1] * wanted < 1:
        return None
    index = int(np.searchsorted(different, wanted * different[-1], side="right")) - 1
    return None if index < 0 else point_at(index, same, different)


def equal_error_point(same: NDArray[np.int64], different: NDArray[np.int64]) -> OperatingPoint | None:
    """The threshold at which both error rates differ least; None if one kind of pair is missing."""
    if same[-1] == 0 or different[-1] == 0:
        return None
    gap = np.abs(different / different[-1] - (1 - same / same[-1]))
    return point_at(int(gap.argmin()), same, different)


def calibrate(counts: PairCounts, *, wanted_fpr: float | None = None) -> Calibration | None:
    """Chooses a threshold on the first half and measures it on the second.

    Args:
        counts: of both halves.
        wanted_fpr: highest false positive rate allowed; None chooses equal error rates.

    Returns:
        None if a half has too few pairs.
    """
    (same, other_same), (different, other_different) = counts.same, counts.different
    chosen = equal_error_point(same, different) if wanted_fpr is None else point_at_fpr(same, different, wanted_fpr)
    if chosen is None or other_same[-1] == 0 or other_different[-1] == 0:
        return None
    index = int(np.argmin(np.abs(EDGES - chosen.threshold)))
    return Calibration(
        wanted_fpr=wanted_fpr,
        chosen=chosen,
        held_out=point_at(index, other_same, other_different),
        held_out_same=int(other_same[-1]),
        held_out_different=int(other_different[-1]),
    )


def roc_curve(counts: PairCounts, *, points: int = 61) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates over all pairs at `points` thresholds, spaced evenly in log FPR from 1e-5 to 1."""
    same, different = counts.same.sum(axis=0), counts.different.sum(axis=0)
    if same[-1] == 0 or different[-1] == 0:
        return np.zeros(0), np.zeros(0)
    wanted = np.logspace(-5, 0, points)
    index = np.searchsorted(different, wanted * different[-1], side="right") - 1
    index = np.unique(index[(index >= 0) & (wanted * different[-1] >= 1)])
    return different[index] / different[-1], same[index] / same[-1]
