"""Pairs and scores of a site from their definitions, with lists and loops."""

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A tracklet: its video, and the frame and the row of each of its images in the order of frames.
SlowTracklet = tuple[str, list[tuple[int, int]]]
# The tracklet and the row of an image of a first third, and of one of a last third.
SlowPair = tuple[tuple[int, int], tuple[int, int]]


def spread(rows: list[int]) -> list[int]:
    """Eight of the rows at even distances, or all of up to eight."""
    if len(rows) <= 8:
        return rows
    return [rows[round(step * (len(rows) - 1) / 7)] for step in range(8)]


def slow_pairs(tracklets: Sequence[SlowTracklet]) -> set[SlowPair]:
    """Pairs of one tracklet, and of two with an image in the same frame of the same video."""
    long = [(video, seen) for video, seen in tracklets if len(seen) >= 3]
    found = set()
    for first, (video, seen) in enumerate(long):
        for second, (other, others) in enumerate(long):
            meet = video == other and {frame for frame, _ in seen} & {frame for frame, _ in others}
            if first != second and not meet:
                continue
            early = spread([row for _, row in seen[: len(seen) // 3]])
            late = spread([row for _, row in others[len(others) - len(others) // 3 :]])
            found |= {((first, query), (second, gallery)) for query in early for gallery in late}
    return found


def slow_distance(query: NDArray[np.floating], gallery: NDArray[np.floating]) -> float:
    """1 - cos of two vectors."""
    product = sum(float(a) * float(b) for a, b in zip(query, gallery, strict=True))
    return 1 - product / math.sqrt(sum(float(a) ** 2 for a in query) * sum(float(b) ** 2 for b in gallery))


def slow_scores(pairs: Sequence[SlowPair], distance: Sequence[float], weight: Sequence[float]) -> dict[str, float]:
    """The scores of a site; a pair of one tracklet counts as often as it, one of two as often as their product."""
    edges = [np.float32(step * 0.001) for step in range(2001)]
    steps = [min(2000, bisect.bisect_left(edges, value)) for value in distance]
    same, other = [], []
    for ((first, _), (second, _)), step in zip(pairs, steps, strict=True):
        if first == second:
            same.append((step, weight[first]))
        else:
            other.append((step, weight[first] * weight[second]))
    total = sum(times for _, times in same) * sum(times for _, times in other)
    wins = sum(
        times * others * (1.0 if step < far else 0.5 if step == far else 0.0)
        for step, times in same
        for far, others in other
    )
    scores = {"auc": wins / total, "rank1": slow_rank1(pairs, distance, weight)}
    for wanted in (0.01, 0.001):
        scores[f"found_at_{wanted:g}"] = slow_found(same, other, wanted)[1]
    return scores


def slow_found(
    same: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]], wanted: float
) -> tuple[int, float]:
    """The largest step up to which at most a share of the pairs of two is, and the share of those of one up to it."""

    def share(pairs: Sequence[tuple[int, float]], step: int) -> float:
        return sum(times for value, times in pairs if value <= step) / sum(times for _, times in pairs)

    # The share changes at the steps of pairs only; the largest step is just before one, or the last of all.
    steps = {2000, *(value - 1 for value, _ in other)}
    step = max((step for step in steps if share(other, step) <= wanted), default=-1)
    return step, share(same, step)


def slow_rank1(pairs: Sequence[SlowPair], distance: Sequence[float], weight: Sequence[float]) -> float:
    """Share of the images of first thirds with pairs of both kinds whose nearest image is of their tracklet alone."""
    right = counted = 0.0
    for query in sorted({query for query, _ in pairs}):
        own = [
            value
            for (asked, found), value in zip(pairs, distance, strict=True)
            if asked == query and found[0] == query[0]
        ]
        others = [
            value
            for (asked, found), value in zip(pairs, distance, strict=True)
            if asked == query and found[0] != query[0]
        ]
        if own and others:
            counted += weight[query[0]]
            right += weight[query[0]] * (min(own) < min(others))
    return right / counted
