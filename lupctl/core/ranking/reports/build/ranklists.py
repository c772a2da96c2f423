"""The queries that a report shows, and the images that rank first for them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, SameCamera
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reports.page.ranklists import RankList, RankRow, Shown
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures
from lupctl.core.ranking.retrieval.picking import pick_queries
from lupctl.core.ranking.retrieval.score import Scored

NEAREST = 10
# Ignored images could fill a whole list: one camera may have seen its person a hundred times.
MOST_IGNORED = 2

Pictures = Callable[[str], str | None]


def rank_lists(
    features: JoinedFeatures, scored: Scored, *, same_camera: SameCamera, device: torch.device, pictures: Pictures
) -> list[RankList]:
    """Rank lists of the hardest and the easiest queries, by the distances of the features and after re-ranking.

    Args:
        features: all images.
        scored: the queries, ranked.
        same_camera: the rule by which they were.
        device: where distances are computed.
        pictures: gives the small picture of an image by its name.
    """
    samples, ranking = features.samples, scored.ranking
    queries, gallery = query_rows(samples), np.flatnonzero(samples.role == ROLE_CODES["gallery"])
    picked = pick_queries(ranking)
    rows = queries[[query for _, query in picked]]
    asked, shown = (UnitRows(features.vectors, some, device=device) for some in (rows, gallery))
    cosines = shown.cosines(asked.unit(0, len(rows))).cpu().numpy()
    lists = []
    for (ease, query), row, cosine in zip(picked, rows, cosines, strict=True):
        distances = 1 - cosine.astype(np.float64)  # in float32, cosines that differ would become equal
        nearest, first_right = _pick(_walk(features, int(row), gallery, distances, same_camera), pictures)
        about = _show(features, int(row))
        lists.append(
            RankList(
                ease=ease,
                query=replace(about, picture=pictures(about.name)),
                right=int(ranking.num_right[query]),
                plain=RankRow(float(ranking.ap_step[query]), nearest, first_right),
                reranked=_rerank(features, scored, query, row=int(row), pictures=pictures),
            )
        )
    return lists


def _rerank(features: JoinedFeatures, scored: Scored, query: int, *, row: int, pictures: Pictures) -> RankRow | None:
    """The row of a query after re-ranking. Pairs that count neither way have no distance there, and are left out."""
    distances = scored.reranked_rows.get(query)
    if scored.reranking is None or distances is None:
        return None
    counts = np.isfinite(distances)
    gallery = gallery_rows(features.samples)[counts]
    nearest, first_right = _pick(_walk(features, row, gallery, distances[counts], "keep"), pictures)
    return RankRow(float(scored.reranking.ap_step[query]), nearest, first_right)


def _walk(
    features: JoinedFeatures, query: int, gallery: NDArray[np.int64], distances: NDArray[Any], same_camera: SameCamera
) -> Iterator[Shown]:
    """The gallery, nearest first, junk included."""
    samples, rank = features.samples, 0
    person, camera = samples.person[query], samples.camera[query]
    for column in np.argsort(distances, kind="stable"):
        row = int(gallery[column])
        same = samples.person[row] == person != DISTRACTOR
        shown = replace(_show(features, row), distance=float(distances[column]))
        if samples.person[row] == JUNK or (same and same_camera == "drop" and samples.camera[row] == camera):
            yield replace(shown, verdict="ignored")
            continue
        rank += 1
        yield replace(shown, verdict="right" if same else "wrong", rank=rank)


def _pick(walk: Iterator[Shown], pictures: Pictures) -> tuple[tuple[Shown, ...], Shown | None]:
    nearest: list[Shown] = []
    ignored = 0
    for shown in walk:
        if shown.rank is None:
            ignored += 1
            if ignored <= MOST_IGNORED and sum(one.rank is not None for one in nearest) < NEAREST:
                nearest.append(replace(shown, picture=pictures(shown.name)))
        elif shown.rank <= NEAREST:
            nearest.append(replace(shown, picture=pictures(shown.name)))
        elif any(one.verdict == "right" for one in nearest):
            return tuple(nearest), None
        elif shown.verdict == "right":
            return tuple(nearest), replace(shown, picture=pictures(shown.name))
    return tuple(nearest), None


def _show(features: JoinedFeatures, row: int) -> Shown:
    samples = features.samples
    return Shown(name=samples.name[row], person=int(samples.person[row]), camera=int(samples.camera[row]), picture=None)
