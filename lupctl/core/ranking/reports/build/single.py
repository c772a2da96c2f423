"""The report of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.features.cameras import read_counts
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.metrics.cameras import CameraScores
from lupctl.core.ranking.metrics.operating import WANTED_FPR, OperatingPoint, calibrate, point_at_fpr, roc_curve
from lupctl.core.ranking.metrics.pairs import STEP
from lupctl.core.ranking.metrics.ranking import Ranking
from lupctl.core.ranking.reports.model.details import (
    ReportCameras,
    ReportCurve,
    ReportDetails,
    ReportPairs,
    ReportPersons,
    ReportPoint,
    ReportQueries,
    ReportThreshold,
)
from lupctl.core.ranking.reports.model.single import (
    Report,
    ReportCameraUse,
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportProvenance,
    ReportRerank,
    ReportScores,
    ReportSingleShot,
)
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import Counts, query_rows
from lupctl.core.ranking.retrieval.score import Details, Scored

CURVE_RANKS = 50
# Steps of the counts in one bar of the histogram.
STEPS_PER_BIN = 10


def build_report(
    scored: Scored,
    samples: Samples,
    record: Mapping[str, Any],
    *,
    protocol: ReportProtocol,
    rerank: RerankSettings | None,
    wanted_fpr: float | None,
    fingerprints: Mapping[str, str],
    command: Sequence[str],
) -> Report:
    """The report of one evaluation.

    Args:
        scored: the result of `score`.
        samples: person, camera and role of the images that were scored.
        record: the record of the features.
        protocol: the rules.
        rerank: the settings of re-ranking, if any.
        wanted_fpr: false positive rate of the decision threshold; None chooses equal error rates.
        fingerprints: of all inputs.
        command: the command line.
    """
    return Report(
        dataset=str(record.get("dataset", "unknown")),
        counts=_counts(scored.counts),
        scores=ReportScores(**asdict(scored.scores)),
        rerank=_rerank(rerank, scored),
        single_shot=_single_shot(scored.details),
        ci95=ReportInterval(
            map=(scored.map_interval.lower, scored.map_interval.upper),
            rank1=(scored.rank1_interval.lower, scored.rank1_interval.upper),
            draws=DRAWS,
            seed=SEED,
        ),
        protocol=protocol,
        camera_use=_camera_use(record),
        fingerprints=dict(fingerprints),
        provenance=ReportProvenance(version=version("lupctl"), command=list(command), features=dict(record)),
        details=None if scored.details is None else _details(scored, scored.details, samples, wanted_fpr),
    )


def _camera_use(record: Mapping[str, Any]) -> ReportCameraUse | None:
    counts = read_counts(record)
    return None if counts is None else ReportCameraUse(**asdict(counts))


def has_ranking(report: Report, rerank: RerankSettings | None) -> bool:
    """Whether a report includes the re-ranking that these settings ask for."""
    found = report.rerank
    if found is None or rerank is None:
        return False
    wanted = (rerank.k1, rerank.k2, rerank.weight, rerank.base)
    return (found.k1, found.k2, found.weight, found.base) == wanted and rerank.neighbours in (None, found.neighbours)


def _details(scored: Scored, details: Details, samples: Samples, wanted_fpr: float | None) -> ReportDetails:
    queries = samples.select(query_rows(samples))
    return ReportDetails(
        curve=ReportCurve(
            plain=cmc_curve(scored.ranking, scored.counts.gallery),
            reranked=None if scored.reranking is None else cmc_curve(scored.reranking, scored.counts.gallery),
        ),
        pairs=_pairs(details, queries.person, wanted_fpr),
        cameras=_cameras(details.cameras),
        persons=person_scores(queries.person, scored.ranking),
        queries=_queries(queries, scored.ranking, scored.reranking),
    )


def cmc_curve(ranking: Ranking, num_gallery: int) -> list[float]:
    """CMC over the valid queries at ranks 1 to 50, or to the size of the gallery."""
    most = min(CURVE_RANKS, num_gallery)
    first = ranking.first_rank[ranking.is_valid]
    counts = np.bincount(np.minimum(first, most + 1), minlength=most + 2)[1 : most + 1]
    curve: list[float] = (counts.cumsum() / len(first)).tolist()
    return curve


def person_scores(person: NDArray[np.int64], ranking: Ranking) -> ReportPersons:
    """Means over the valid queries of each person, lowest mAP first."""
    valid = ranking.is_valid
    numbers, label, count = np.unique(person[valid], return_inverse=True, return_counts=True)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.bincount(label, values[valid]) / count
        return means

    scores = mean(ranking.ap_step)
    order = np.lexsort((numbers, scores))
    return ReportPersons(
        person=numbers[order].tolist(),
        queries=count[order].tolist(),
        map=scores[order].tolist(),
        rank1=mean(ranking.first_rank == 1)[order].tolist(),
        minp=mean(ranking.inp)[order].tolist(),
    )


def _single_shot(details: Details | None) -> ReportSingleShot | None:
    if details is None or details.shots is None:
        return None
    found = details.shots
    return ReportSingleShot(cmc=found.cmc, rank1_range=found.rank1_range, persons=found.persons)


def _pairs(details: Details, person: NDArray[np.int64], wanted_fpr: float | None) -> ReportPairs:
    same, different = details.pairs.same.sum(axis=0), details.pairs.different.sum(axis=0)
    points = {f"{wanted:g}": point_at_fpr(same, different, wanted) for wanted in WANTED_FPR}
    roc = roc_curve(details.pairs)
    return ReportPairs(
        same=int(same[-1]),
        different=int(different[-1]),
        bin=STEP * STEPS_PER_BIN,
        same_counts=histogram(same),
        different_counts=histogram(different),
        at_fpr={wanted: None if point is None else _point(point) for wanted, point in points.items()},
        roc_fpr=roc[0].tolist(),
        roc_tpr=roc[1].tolist(),
        threshold=_threshold(details, person, wanted_fpr),
    )


def histogram(below: NDArray[np.int64]) -> list[int]:
    """Counts per bin from the counts up to each edge; values at 0 are in the first bin."""
    counts: list[int] = np.diff(below[::STEPS_PER_BIN], prepend=0)[1:].tolist()
    counts[0] += int(below[0])
    return counts


def _threshold(details: Details, person: NDArray[np.int64], wanted_fpr: float | None) -> ReportThreshold | None:
    found = calibrate(details.pairs, wanted_fpr=wanted_fpr)
    if found is None:
        return None
    persons = [len(np.unique(person[details.half == which])) for which in (0, 1)]
    return ReportThreshold(
        rule="equal error" if wanted_fpr is None else "false positive rate",
        wanted_fpr=wanted_fpr,
        seed=SEED,
        persons=(persons[0], persons[1]),
        chosen=_point(found.chosen),
        held_out=_point(found.held_out),
        held_out_same=found.held_out_same,
        held_out_different=found.held_out_different,
    )


def _point(point: OperatingPoint) -> ReportPoint:
    return ReportPoint(threshold=point.threshold, fpr=point.fpr, tpr=point.tpr)


def _cameras(scores: CameraScores) -> ReportCameras:
    return ReportCameras(
        query=scores.query.tolist(),
        gallery=scores.gallery.tolist(),
        queries=scores.queries.tolist(),
        map=[_without_nan(row) for row in scores.map],
        rank1=[_without_nan(row) for row in scores.rank1],
    )


def _queries(queries: Samples, ranking: Ranking, reranking: Ranking | None) -> ReportQueries:
    return ReportQueries(
        name=list(queries.name),
        person=queries.person.tolist(),
        camera=queries.camera.tolist(),
        right=ranking.num_right.tolist(),
        ap=_without_nan(ranking.ap_step),
        ap_official=_without_nan(ranking.ap_trapezoid),
        inp=_without_nan(ranking.inp),
        first_rank=_first_ranks(ranking),
        ap_reranked=None if reranking is None else _without_nan(reranking.ap_step),
        first_rank_reranked=None if reranking is None else _first_ranks(reranking),
    )


def _first_ranks(ranking: Ranking) -> list[int | None]:
    return [rank or None for rank in ranking.first_rank.tolist()]


def _without_nan(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _counts(counts: Counts) -> ReportCounts:
    return ReportCounts(
        queries=counts.queries,
        queries_valid=counts.valid,
        queries_absent=counts.absent,
        query_persons=counts.persons,
        gallery=counts.gallery,
        junk=counts.junk,
        distractors=counts.distractors,
    )


def _rerank(settings: RerankSettings | None, scored: Scored) -> ReportRerank | None:
    if settings is None or scored.rerank_scores is None or scored.neighbours is None:
        return None
    return ReportRerank(
        k1=settings.k1,
        k2=settings.k2,
        weight=settings.weight,
        base=settings.base,
        neighbours=scored.neighbours,
        scores=ReportScores(**asdict(scored.rerank_scores)),
    )
