"""The queries that a report shows, and the images that rank first for them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, SameCamera
from lupctl.core.ranking.metrics.ranking import Ranking
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reports.page.ranklists import Ease, RankList, Shown
from lupctl.core.ranking.retrieval.answerable import query_rows
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures

HARDEST, EASIEST = 12, 6
NEAREST = 10
# Ignored images could fill a whole list: one camera may have seen its person a hundred times.
MOST_IGNORED = 2

Pictures = Callable[[str], str | None]


def pick_queries(ranking: Ranking) -> list[tuple[Ease, int]]:
    """The queries with the lowest and the highest AP; among equally easy ones, those with more right answers."""
    valid = np.flatnonzero(ranking.is_valid)
    ap, right = ranking.ap_step[valid], ranking.num_right[valid]
    hardest = valid[np.lexsort((valid, ap))][:HARDEST]
    easiest = valid[np.lexsort((valid, -right, -ap))]
    picked: list[tuple[Ease, int]] = [("hardest", int(query)) for query in hardest]
    return picked + [("easiest", int(query)) for query in easiest if query not in hardest][:EASIEST]


def rank_lists(
    features: JoinedFeatures, ranking: Ranking, *, same_camera: SameCamera, device: torch.device, pictures: Pictures
) -> list[RankList]:
    """Rank lists of the hardest and the easiest queries, by the distances of the features.

    Args:
        features: all images.
        ranking: of the queries, without re-ranking.
        same_camera: the rule by which it was made.
        device: where distances are computed.
        pictures: gives the small picture of an image by its name.
    """
    samples = features.samples
    queries, gallery = query_rows(samples), np.flatnonzero(samples.role == ROLE_CODES["gallery"])
    picked = pick_queries(ranking)
    rows = queries[[query for _, query in picked]]
    asked, shown = (UnitRows(features.vectors, some, device=device) for some in (rows, gallery))
    cosines = shown.cosines(asked.unit(0, len(rows))).cpu().numpy()
    lists = []
    for (ease, query), row, cosine in zip(picked, rows, cosines, strict=True):
        nearest, first_right = _pick(_walk(features, int(row), gallery, cosine, same_camera), pictures)
        about = _show(features, int(row))
        lists.append(
            RankList(
                ease=ease,
                query=replace(about, picture=pictures(about.name)),
                ap=float(ranking.ap_step[query]),
                right=int(ranking.num_right[query]),
                nearest=nearest,
                first_right=first_right,
            )
        )
    return lists


def _walk(
    features: JoinedFeatures, query: int, gallery: NDArray[np.int64], cosine: NDArray[Any], same_camera: SameCamera
) -> Iterator[Shown]:
    """The whole gallery, nearest first, junk included."""
    samples, rank = features.samples, 0
    person, camera = samples.person[query], samples.camera[query]
    for column in np.argsort(-cosine, kind="stable"):
        row = int(gallery[column])
        same = samples.person[row] == person != DISTRACTOR
        shown = replace(_show(features, row), distance=float(1 - cosine[column]))
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
