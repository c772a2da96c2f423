"""Scores from features and the labels of their images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import NeighbourSearch, SameCamera, TestedPersons
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.metrics.bootstrap import SEED, bootstrap_interval
from lupctl.core.ranking.metrics.cameras import CameraCounter, CameraScores
from lupctl.core.ranking.metrics.columns import ColumnGroups
from lupctl.core.ranking.metrics.labels import ImageLabels
from lupctl.core.ranking.metrics.pairs import PairCounter, PairCounts, split_persons
from lupctl.core.ranking.metrics.ranking import (
    Distances,
    Ranking,
    Watcher,
    cosine_distances,
    pick_chunk,
    rank_queries,
)
from lupctl.core.ranking.metrics.scores import Scores, compute_scores
from lupctl.core.ranking.metrics.shots import ShotCounter, ShotScores, valid_persons
from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.ranking.metrics.vectors import BLOCK_BYTES, MIN_NORM, UnitRows
from lupctl.core.ranking.reranking.faiss_neighbours import estimate_index_bytes
from lupctl.core.ranking.reranking.rerank import (
    RerankSettings,
    Sides,
    estimate_encoding_bytes,
    neighbour_search,
    reranked_distances,
)
from lupctl.core.ranking.retrieval.answerable import Counts, check_answerable, gallery_rows, query_rows
from lupctl.core.ranking.retrieval.picking import RowKeeper, pick_queries
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a fraction."""

    lower: float
    upper: float


@dataclass(frozen=True)
class DetailSettings:
    """What to count while queries are ranked, in addition to pairs and cameras.

    Args:
        shots: draws of a single gallery shot; 0 draws none.
        seed: of these draws.
        persons: how many persons with a valid query each draw tests.
    """

    shots: int = 0
    seed: int = 0
    persons: TestedPersons | int = "all"


@dataclass(frozen=True)
class Details:
    """Results of ranking beyond the main scores.

    Args:
        pairs: distances of same-person and different-person pairs, by half of the queries' persons.
        half: (Q) which half each query's person belongs to.
        cameras: scores of each pair of cameras.
        shots: CMC with a single gallery shot, if requested.
    """

    pairs: PairCounts
    half: NDArray[np.int64]
    cameras: CameraScores
    shots: ShotScores | None


@dataclass(frozen=True)
class Scored:
    """One evaluation.

    Args:
        counts: what was ranked.
        scores: from the distances of the features.
        map_interval: of `scores.map`, by bootstrap over the valid queries.
        rank1_interval: of `scores.cmc[1]`, from the same draws.
        ranking: each query, in the order of the samples.
        rerank_scores: after re-ranking, if requested.
        reranking: each query after re-ranking.
        reranked_rows: with details, the re-ranked distances (G) of the queries that `pick_queries` picks, by number;
            infinite where a pair counts neither way.
        neighbours: how re-ranking found its neighbours.
        details: counted during the ranking, if requested; without re-ranking.
    """

    counts: Counts
    scores: Scores
    map_interval: Interval
    rank1_interval: Interval
    ranking: Ranking
    rerank_scores: Scores | None
    reranking: Ranking | None
    reranked_rows: Mapping[int, NDArray[Any]]
    neighbours: NeighbourSearch | None
    details: Details | None


def score(
    features: NDArray[Any] | Tensor | StackedRows,
    samples: Samples,
    *,
    device: torch.device | Sequence[torch.device],
    chunk: int | None = None,
    rerank: RerankSettings | None = None,
    same_camera: SameCamera = "drop",
    details: DetailSettings | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Ranks the gallery for every query and scores the rankings (Market-1501's rule; see `rank_queries`).

    Args:
        features: (N, D) float32 or float16, not necessarily normalised: an array, a tensor on any device, or several;
            neither changed nor copied as a whole.
        samples: person, camera and role of the N images; roles other than query and gallery are left out.
        device: where distances are computed; several devices take turns with the chunks.
        chunk: queries at a time; None takes as many as fit.
        rerank: scores again after re-ranking.
        same_camera: whether to ignore the query's person seen by the query's camera or to count it as right.
        details: also counts pairs, cameras and shots.
        progress: shows bars.

    Raises:
        DataError: the query set cannot be scored (see `check_answerable`), features have no direction, or there are
            fewer persons than should be tested.
        UsageError, DeviceError: re-ranking's neighbours cannot be found as requested (see `reranked_distances`).
    """
    counts = check_answerable(samples, same_camera=same_camera)
    rows = (query_rows(samples), gallery_rows(samples))
    devices = [device] if isinstance(device, torch.device) else list(device)
    pools = [UnitRows(features, np.arange(len(samples)), device=one) for one in devices]
    _check_norms(pools[0].norm, samples)
    sides = [_sides(pool, *rows) for pool in pools]
    who = [ImageLabels(person=samples.person[some], camera=samples.camera[some]) for some in rows]
    progress = progress or Progress(quiet=True)

    def rank(title: str, distances: list[Distances], *watchers: Watcher, groups: ColumnGroups | None = None) -> Ranking:
        with progress.task(title, total=counts.queries, unit="queries") as task:
            return rank_queries(
                distances[0],
                *who,
                others=distances[1:],
                chunk=chunk,
                same_camera=same_camera,
                groups=groups,
                watchers=watchers,
                advance=task.advance,
            )

    half = split_persons(who[0].person, seed=SEED)
    pairs, cameras = PairCounter(half), CameraCounter(who[0].camera, who[1].camera)
    shots = _shot_counter(who[0], who[1], details, same_camera) if details and details.shots else None
    watchers: list[Watcher] = [pairs, cameras, *([] if shots is None else [shots])]
    cosines = [cosine_distances(one.queries, one.gallery) for one in sides]
    ranking = rank("ranking", cosines, *watchers, groups=cameras.groups) if details else rank("ranking", cosines)
    reranking, kept = None, RowKeeper([query for _, query in pick_queries(ranking)] if details else [])
    if rerank is not None:
        with progress.task("neighbours", total=len(sides[0].pool), unit="images") as task:
            distances = reranked_distances(sides[0], rerank, others=sides[1:], chunk=chunk, advance=task.advance)
        reranking = rank("re-ranking", distances, kept)
    intervals = score_intervals(ranking)
    return Scored(
        counts=counts,
        scores=compute_scores(ranking, num_gallery=counts.gallery),
        map_interval=intervals[0],
        rank1_interval=intervals[1],
        ranking=ranking,
        rerank_scores=None if reranking is None else compute_scores(reranking, num_gallery=counts.gallery),
        reranking=reranking,
        reranked_rows=kept.rows,
        neighbours=None if rerank is None else neighbour_search(rerank, devices),
        details=None
        if details is None
        else Details(
            pairs=pairs.counts(), half=half, cameras=cameras.scores(), shots=None if shots is None else shots.scores()
        ),
    )


def _sides(images: UnitRows, queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> Sides:
    pool = images.select(np.concatenate([queries, gallery]))
    return Sides(queries=pool.part(0, len(queries)), gallery=pool.part(len(queries), len(pool)), pool=pool)


def _shot_counter(
    queries: ImageLabels, gallery: ImageLabels, settings: DetailSettings, same_camera: SameCamera
) -> ShotCounter:
    candidates = valid_persons(queries, gallery, same_camera=same_camera)
    tested = None
    if settings.persons != "all":
        tested = len(candidates) // 2 if settings.persons == "half" else settings.persons
        if not 1 <= tested <= len(candidates):
            raise DataError(
                f"{settings.persons} persons were requested for each draw, but {len(candidates)} have a query with a "
                "right answer",
                hint="--persons half",
            )
    return ShotCounter(gallery.person, draws=settings.shots, seed=settings.seed, candidates=candidates, tested=tested)


def check_directions(features: NDArray[Any] | Tensor | StackedRows, samples: Samples, *, device: torch.device) -> None:
    """Refuses features that are NaN, infinite or all zero, whatever the image's role: their cosines are meaningless.

    Raises:
        DataError: gives the number of images and the first rows.
    """
    _check_norms(UnitRows(features, np.arange(len(samples)), device=device).norm, samples)


def _check_norms(norm: NDArray[np.float64], samples: Samples) -> None:
    for rows, what in (
        (np.flatnonzero(~np.isfinite(norm)), "NaN, infinite or beyond float32"),
        (np.flatnonzero(norm == 0), "zero in every value"),
        (np.flatnonzero((norm > 0) & (norm < MIN_NORM)), "too small for float32"),
    ):
        if len(rows):
            bad = [f"row {row} ({samples.name[row]})" for row in rows.tolist()]
            raise DataError(
                f"{len(bad)} of {len(samples)} features are {what}: {name_some(bad)}",
                hint="the network that made them is broken; use another checkpoint: lupctl dump RUN --force",
            )


def score_intervals(ranking: Ranking) -> tuple[Interval, Interval]:
    """95 % intervals of mAP (step) and rank-1 over the valid queries, from the same draws."""
    valid = ranking.is_valid
    per_query = np.stack([ranking.ap_step[valid], (ranking.first_rank[valid] == 1).astype(np.float64)], axis=1)
    ends = bootstrap_interval(per_query)
    return Interval(float(ends[0, 0]), float(ends[0, 1])), Interval(float(ends[1, 0]), float(ends[1, 1]))


def estimate_bytes(counts: Counts, dimension: int, *, chunk: int | None, rerank: RerankSettings | None) -> int:
    """Upper estimate of the memory that scoring takes beyond the features, in bytes.

    Args:
        counts: what will be ranked.
        dimension: D.
        chunk: queries at a time, as for `score`.
        rerank: adds the memory of re-ranking.
    """
    widest = counts.gallery if rerank is None else counts.gallery + counts.queries
    rows = min(chunk or pick_chunk(counts.gallery), widest)
    # Distances, their sorted copy (`MAX_SLOTS`), raw and normalised queries, one gathered block of the gallery.
    blocks = 3 * rows * widest * 4 + 2 * rows * dimension * 4 + min(BLOCK_BYTES, widest * dimension * 4)
    if rerank is None:
        return blocks
    index = estimate_index_bytes(widest, dimension) if rerank.neighbours == "faiss" else 0
    return blocks + index + estimate_encoding_bytes(widest, rerank)
