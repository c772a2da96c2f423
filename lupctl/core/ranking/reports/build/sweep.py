"""Sweeps from the reports of their values: which is best, and which differences are more than luck with the queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.choices import SettingKey
from lupctl.core.errors import DataError
from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.reports.build.comparison import check_comparable, pair_differences
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.reports.model.sweep import Sweep, SweepDifference, SweepPoint, SweepRerank, Value
from lupctl.core.ranking.reports.model.warnings import sort_warnings


@dataclass(frozen=True)
class Measured:
    """One value of a sweep, and its report.

    Args:
        value: of the key.
        settings: all that is set with it.
        features: that were scored.
        report: with details.
        is_own: whether it is the network's own value.
    """

    value: Value
    settings: Mapping[str, Value]
    features: Path
    report: Report
    is_own: bool


def build_sweep(key: SettingKey, measured: Sequence[Measured], *, network: str, base: Mapping[str, Value]) -> Sweep:
    """The sweep of some values, compared with the own one by a paired bootstrap over the queries (Efron 1979).

    Args:
        key: what was varied.
        measured: its values, exactly one of them the own one.
        network: the checkpoint.
        base: what else was set.

    Raises:
        DataError: two of the reports rank different queries or galleries.
    """
    (own,) = (one for one in measured if one.is_own)
    for one in measured:
        check_comparable(str(own.features), own.report, str(one.features), one.report)
    best = _pick_best(measured, [one.report.scores.map for one in measured])
    reranked = [one.report.rerank.scores.map for one in measured if one.report.rerank is not None]
    first = own.report
    return Sweep(
        network=network,
        dataset=first.dataset,
        key=key,
        own=own.value,
        base=dict(base),
        best=best.value,
        best_reranked=_pick_best(measured, reranked).value if reranked else None,
        queries=first.counts.queries,
        queries_valid=first.counts.queries_valid,
        draws=DRAWS,
        seed=SEED,
        protocol=first.protocol,
        rerank=None if first.rerank is None else _rerank(first),
        points=[_build_point(one, own) for one in measured],
        warnings=sort_warnings(warning for one in measured for warning in one.report.warnings or []),
    )


def _pick_best(measured: Sequence[Measured], scores: Sequence[float]) -> Measured:
    """The one with the highest score; of equal ones the own value, else the first."""
    if len(scores) < len(measured):
        raise DataError(
            "the reports of some values are re-ranked and those of others are not", hint="the same command with --force"
        )
    ranked = sorted(zip(scores, measured, strict=True), key=lambda pair: (-pair[0], not pair[1].is_own))
    return ranked[0][1]


def _rerank(report: Report) -> SweepRerank:
    found = report.rerank
    assert found is not None
    return SweepRerank(k1=found.k1, k2=found.k2, weight=found.weight, base=found.base)


def _build_point(one: Measured, own: Measured) -> SweepPoint:
    report = one.report
    differences = [] if one is own else pair_differences((str(one.value), report), (str(own.value), own.report))
    return SweepPoint(
        value=one.value,
        is_own=one.is_own,
        set=dict(one.settings),
        scores=report.scores,
        ci95=report.ci95,
        reranked=None if report.rerank is None else report.rerank.scores,
        differences=[
            SweepDifference(
                measure=found.measure,
                reranked=found.reranked,
                value=found.value,
                ci95=found.ci95,
                exceeds=found.exceeds,
            )
            for found in differences
        ],
        features=str(one.features),
        fingerprints=report.fingerprints,
    )
