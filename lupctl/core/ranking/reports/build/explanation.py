"""Explanations from the reports of trials: which of them closes the gap to published scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.reports.build.comparison import check_comparable, pair_differences
from lupctl.core.ranking.reports.model.comparison import Measure
from lupctl.core.ranking.reports.model.explanation import (
    Cause,
    Explanation,
    NotTried,
    Trial,
    TrialDifference,
    Verdict,
)
from lupctl.core.ranking.reports.model.published import ROUNDING
from lupctl.core.ranking.reports.model.single import Report


@dataclass(frozen=True)
class Tried:
    """One trial, and its report.

    Args:
        cause: what was changed.
        ours, tried: from what, and to what.
        is_published: whether that is the published way.
        report: with details.
        command: that makes such features; None where they are the same ones.
    """

    cause: Cause
    ours: str
    tried: str
    is_published: bool
    report: Report
    command: str | None


def build_explanation(
    own: Report, tried: Sequence[Tried], not_tried: Sequence[NotTried], *, network: Path, features: Path
) -> Explanation:
    """What each trial changes, by a paired bootstrap over the queries (Efron 1979), and which one closes the gap.

    Args:
        own: of the features in question, with details, and with published scores where there are some.
        tried: the same network with one change each.
        not_tried: what could not be changed.
        network, features: the files.
    """
    published = own.published
    target = None if published is None or not published.is_comparable else (published.map, published.rank1)
    gaps = None if target is None else (target[0] - own.scores.map, target[1] - own.scores.cmc[1])
    trials = [_build_trial(own, one, target) for one in tried]
    verdict, closed_by = pick_cause(trials, gaps)
    return Explanation(
        network=str(network),
        features=str(features),
        dataset=own.dataset,
        queries=own.counts.queries,
        queries_valid=own.counts.queries_valid,
        draws=DRAWS,
        seed=SEED,
        protocol=own.protocol,
        scores=own.scores,
        ci95=own.ci95,
        published=published,
        map_gap=None if gaps is None else gaps[0],
        rank1_gap=None if gaps is None else gaps[1],
        trials=trials,
        not_tried=list(not_tried),
        verdict=verdict,
        closed_by=closed_by,
        fingerprints=own.fingerprints,
        warnings=own.warnings or [],
    )


def pick_cause(trials: Sequence[Trial], gaps: tuple[float, float] | None) -> tuple[Verdict, Cause | None]:
    """The cause that closes the gap: of the trials whose paired intervals contain it, the nearest to published scores.

    Published scores are rounded, and so are the ends of the intervals; a trial that is no nearer than the features in
    question closes nothing.

    Args:
        trials: what was tried.
        gaps: published mAP and rank-1 less ours; None where they are not comparable.
    """
    if gaps is None:
        return "not compared", None
    if max(map(abs, gaps)) <= ROUNDING:
        return "no gap", None
    closing = [one for one in trials if _closes(one, gaps)]
    if not closing:
        return "not explained", None
    return "explained", min(closing, key=_distance).cause


def _closes(trial: Trial, gaps: tuple[float, float]) -> bool:
    if trial.map_difference is None or trial.rank1_difference is None:
        # Of other images: the published scores have to be in the intervals of the trial alone, which are wider.
        found = ((trial.ci95.map, trial.scores.map), (trial.ci95.rank1, trial.scores.cmc[1]))
        intervals = [(ends[0] - share, ends[1] - share) for ends, share in found]
        wanted: Sequence[float] = [one for one in (trial.map_left, trial.rank1_left) if one is not None]
    else:
        intervals, wanted = [trial.map_difference.ci95, trial.rank1_difference.ci95], gaps
    is_inside = all(
        ends[0] - ROUNDING <= gap <= ends[1] + ROUNDING for ends, gap in zip(intervals, wanted, strict=True)
    )
    return is_inside and _distance(trial) < max(map(abs, gaps))


def _distance(trial: Trial) -> float:
    """What is left to the published scores, the larger of the two."""
    left = trial.map_left, trial.rank1_left
    return max(abs(one) for one in left if one is not None)


def _build_trial(own: Report, one: Tried, target: tuple[float, float] | None) -> Trial:
    found = _differences(own, one)
    scores = one.report.scores
    return Trial(
        cause=one.cause,
        ours=one.ours,
        tried=one.tried,
        is_published=one.is_published,
        scores=scores,
        ci95=one.report.ci95,
        map_difference=found.get("map"),
        rank1_difference=found.get("rank1"),
        map_left=None if target is None else target[0] - scores.map,
        rank1_left=None if target is None else target[1] - scores.cmc[1],
        command=one.command,
    )


def _differences(own: Report, one: Tried) -> dict[Measure, TrialDifference]:
    """The differences from the features in question; none where the queries cannot be paired.

    MSMT17's versions have the same lists in the same order, under other folders.
    """
    report = one.report
    if one.cause in ("version", "all of these") and own.details is not None and report.details is not None:
        queries, others = own.details.queries, report.details.queries
        if len(queries.name) == len(others.name) and _bare(queries.name) == _bare(others.name):
            same = others.model_copy(update={"name": queries.name})
            report = report.model_copy(update={"details": report.details.model_copy(update={"queries": same})})
    try:
        check_comparable("ours", own, one.cause, report)
    except DataError:
        return {}
    return {
        found.measure: TrialDifference(value=found.value, ci95=found.ci95, exceeds=found.exceeds)
        for found in pair_differences((one.cause, report), ("ours", own))
        if not found.reranked
    }


def _bare(names: Sequence[str]) -> list[str]:
    """Names of images without the folder that all images of a kind are in.

    >>> _bare(["mask_test_v2/0000/a.jpg", "test/0000/a.jpg"])
    ['0000/a.jpg', '0000/a.jpg']
    """
    return [name.partition("/")[2] or name for name in names]
