"""Comparison of runs: whether one is better than another, or only luckier with the queries."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError
from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED, bootstrap_interval
from lupctl.core.ranking.reports.model.comparison import (
    MEASURE_NAMES,
    ComparedRun,
    Comparison,
    Difference,
    Measure,
    SeedGroup,
)
from lupctl.core.ranking.reports.model.details import ReportDetails, ReportQueries
from lupctl.core.ranking.reports.model.single import Report

# The ending that `finetune` gives to the names of runs after the first seed.
SEED_ENDING = re.compile(r"-seed\d+$")


def compare_reports(reports: Mapping[str, Report]) -> Comparison:
    """Compares every pair of runs by a paired bootstrap over the queries (Efron 1979).

    Each draw takes the same queries from both runs.

    Args:
        reports: by the name of the run, at least two; each with details.

    Raises:
        DataError: the runs ranked different queries, or by different rules.
    """
    names = list(reports)
    first = reports[names[0]]
    for name in names[1:]:
        check_comparable(names[0], first, name, reports[name])
    return Comparison(
        dataset=first.dataset,
        queries=first.counts.queries,
        queries_valid=first.counts.queries_valid,
        draws=DRAWS,
        seed=SEED,
        runs=[
            ComparedRun(
                name=name,
                scores=report.scores,
                ci95=report.ci95,
                reranked=None if report.rerank is None else report.rerank.scores,
                warnings=report.warnings or [],
                fingerprints=report.fingerprints,
            )
            for name, report in reports.items()
        ],
        seeds=group_seeds(reports),
        differences=[
            difference
            for other, run in itertools.combinations(names, 2)
            for difference in pair_differences((run, reports[run]), (other, reports[other]))
        ],
    )


def group_seeds(reports: Mapping[str, Report]) -> list[SeedGroup]:
    """Means over runs that differ only in their seed; a run without such a sibling is in no group.

    Args:
        reports: by the name or path of the run.
    """
    groups: dict[str, list[str]] = {}
    for name in reports:
        # Keep the folder: the features file of a dataset has the same name in every run.
        groups.setdefault(SEED_ENDING.sub("", str(Path(name))), []).append(name)
    found = []
    for group, names in groups.items():
        if len(names) > 1:
            shares = np.array([(reports[name].scores.map, reports[name].scores.cmc[1]) for name in names])
            mean, spread = shares.mean(axis=0).tolist(), shares.std(axis=0, ddof=1).tolist()
            found.append(
                SeedGroup(
                    name=Path(group).name,
                    runs=names,
                    map_mean=mean[0],
                    map_sd=spread[0],
                    rank1_mean=mean[1],
                    rank1_sd=spread[1],
                )
            )
    return found


def check_comparable(name: str, report: Report, other_name: str, other: Report) -> None:
    """Refuses two reports whose queries cannot be paired.

    Raises:
        DataError: says what differs.
    """
    queries, others = (details_of(title, one).queries for title, one in ((name, report), (other_name, other)))
    reasons = {
        "ranked different queries": (queries.name, queries.person, queries.camera)
        != (others.name, others.person, others.camera),
        "ranked different galleries": (report.counts.gallery, queries.right) != (other.counts.gallery, others.right),
        "were scored by different protocols": report.protocol != other.protocol,
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise DataError(
                f"{name} and {other_name} {reason}, so their scores cannot be compared",
                hint="evaluate both on the same dataset with the same protocol: lupctl eval RUN --force",
            )


def details_of(name: str, report: Report) -> ReportDetails:
    """The details of a report.

    Raises:
        DataError: it has none.
    """
    if report.details is None:
        raise DataError(
            f"{name}: the report has no scores of single queries", hint="evaluate again: lupctl eval RUN --force"
        )
    return report.details


def pair_differences(run: tuple[str, Report], other: tuple[str, Report]) -> list[Difference]:
    """Differences of one pair of runs in both measures: as dumped, and re-ranked if both runs are."""
    kinds = [False] + [True] * (run[1].rerank is not None and other[1].rerank is not None)
    measures: Sequence[Measure] = list(MEASURE_NAMES)
    found = []
    for reranked in kinds:
        mine, theirs = (query_scores(details_of(*one).queries, reranked=reranked) for one in (run, other))
        gap = mine - theirs
        for measure, value, ends in zip(measures, gap.mean(axis=0), bootstrap_interval(gap), strict=True):
            lower, upper = float(ends[0]), float(ends[1])
            found.append(
                Difference(
                    run=run[0],
                    other=other[0],
                    measure=measure,
                    reranked=reranked,
                    value=float(value),
                    ci95=(lower, upper),
                    exceeds=lower > 0 or upper < 0,
                )
            )
    return found


def query_scores(queries: ReportQueries, *, reranked: bool) -> NDArray[np.float64]:
    """Average precision of each valid query, and whether its first answer is right: (Q, 2)."""
    ap = queries.ap_reranked if reranked else queries.ap
    first = queries.first_rank_reranked if reranked else queries.first_rank
    assert ap is not None
    assert first is not None
    return np.array(
        [(value, rank == 1) for value, rank in zip(ap, first, strict=True) if value is not None], np.float64
    ).reshape(-1, 2)
