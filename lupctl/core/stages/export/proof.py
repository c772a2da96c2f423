"""What an export did to retrieval: two networks side by side on the same queries and gallery."""

from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, ExportPrecision
from lupctl.core.errors import DataError, GateError
from lupctl.core.formats.features.file import Features, read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.metrics.bootstrap import DRAWS
from lupctl.core.ranking.reports.build.comparison import check_comparable, pair_differences
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.stages.export.job import ExportJob

# Pairs of a query and a gallery image whose cosines are compared; of more, evenly drawn queries are taken.
MOST_PAIRS: Final = 20_000_000
# The errors by which a threshold is chosen: as many of both kinds, or this share of different persons taken for one.
EQUAL_ERROR: Final = "equal error"
# What loses less.
MORE_EXACT: Final[dict[ExportPrecision, str]] = {
    "int8": "--precision float16, or ", "float16": "--precision float32, or ", "float32": "",
}  # fmt: skip


@dataclass(frozen=True)
class ScoreChange:
    """A score before and after, from 0 to 1.

    Args:
        before, after: of the two networks.
        difference: after minus before.
        ci95: its interval by paired bootstrap over the queries.
    """

    before: float
    after: float
    difference: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class ThresholdChange:
    """The threshold on 1 - cosine at the same error rate before and after; None where there are too few pairs."""

    before: float | None
    after: float | None


@dataclass(frozen=True)
class CosineChange:
    """How far cosines moved.

    Args:
        pairs: of a query and a gallery image.
        mean, largest_95, largest: of the absolute differences; 95 % of them are at most the second.
        own_mean, own_least: cosine of an image's feature before and after.
    """

    pairs: int
    mean: float
    largest_95: float
    largest: float
    own_mean: float
    own_least: float


@dataclass(frozen=True)
class Proof:
    """Two networks on the same images.

    Args:
        dataset, fingerprint: of the pack.
        queries, gallery: images; only valid queries.
        draws: of the bootstrap.
        map, rank1: the scores.
        thresholds: by the error rate.
        cosines: of the features.
    """

    dataset: str
    fingerprint: str
    queries: int
    gallery: int
    draws: int
    map: ScoreChange
    rank1: ScoreChange
    thresholds: dict[str, ThresholdChange]
    cosines: CosineChange

    def to_json(self) -> dict[str, Any]:
        """The part of the record."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        scores = [
            f"{title} {100 * one.before:.2f} -> {100 * one.after:.2f}: {100 * one.difference:+.2f}, 95 % interval "
            f"{100 * one.ci95[0]:+.2f} to {100 * one.ci95[1]:+.2f}"
            for title, one in (("mAP", self.map), ("rank-1", self.rank1))
        ]
        limits = [
            f"threshold at {name if name == EQUAL_ERROR else f'{float(name):.4g} false matches'}: "
            f"{one.before:.3f} -> {one.after:.3f}"
            for name, one in self.thresholds.items()
            if one.before is not None and one.after is not None
        ]
        moved = self.cosines
        return [
            f"proof on {self.dataset}, {self.queries:,} queries and {self.gallery:,} gallery images:",
            *scores,
            *limits,
            f"cosines of {moved.pairs:,} pairs moved by {moved.mean:.4f} on average, at most by {moved.largest:.4f}",
            f"95 % of them moved by less than {moved.largest_95:.4f}",
            f"features keep {moved.own_mean:.4f} of their cosine on average, the worst {moved.own_least:.4f}",
        ]


def check_provable(path: Path) -> None:
    """Refuses images that no score can be computed on.

    Raises:
        DataError: no queries, no gallery, or no query with a right answer.
    """
    samples = open_pack(path).samples
    if not (samples.role == ROLE_CODES["query"]).any():
        raise DataError(
            f"{path}: has no queries to prove anything with",
            hint="name another: --prove PACK; lupctl data list",
        )
    check_answerable(samples)


def compare(before: tuple[Path, Report], after: tuple[Path, Report]) -> Proof:
    """Two networks on the same images.

    Args:
        before, after: features and report of each.

    Raises:
        DataError: they ranked different images.
    """
    first, second = before[1], after[1]
    check_comparable("before", first, "after", second)
    gaps = {one.measure: one for one in pair_differences(("after", second), ("before", first))}

    def change(measure: str, was: float, now: float) -> ScoreChange:
        return ScoreChange(was, now, gaps[measure].value, gaps[measure].ci95)  # type: ignore[index]

    one, two = read_features(before[0]), read_features(after[0])
    packs = [value for name, value in first.fingerprints.items() if name.startswith("pack:")]
    return Proof(
        dataset=first.dataset,
        fingerprint=packs[0] if packs else "",
        queries=first.counts.queries_valid,
        gallery=first.counts.gallery,
        draws=DRAWS,
        map=change("map", first.scores.map, second.scores.map),
        rank1=change("rank1", first.scores.cmc[1], second.scores.cmc[1]),
        thresholds=compare_thresholds(first, second),
        cosines=compare_cosines(one, two),
    )


def compare_thresholds(before: Report, after: Report) -> dict[str, ThresholdChange]:
    """Thresholds at the same error rates."""
    found = [_thresholds(report) for report in (before, after)]
    return {name: ThresholdChange(value, found[1].get(name)) for name, value in found[0].items()}


def _thresholds(report: Report) -> dict[str, float | None]:
    pairs = None if report.details is None else report.details.pairs
    if pairs is None:
        return {}
    equal = None if pairs.threshold is None else pairs.threshold.chosen.threshold
    at = {name: None if point is None else point.threshold for name, point in pairs.at_fpr.items()}
    return {EQUAL_ERROR: equal, **at}


def compare_cosines(before: Features, after: Features) -> CosineChange:
    """How far cosines moved, of all pairs of a query and a gallery image, or of those of evenly drawn queries."""
    role = np.asarray(before.samples.role)
    query, gallery = (np.flatnonzero(role == ROLE_CODES[name]) for name in ("query", "gallery"))
    one, two = (_units(np.asarray(some.features)) for some in (before, after))
    own = (one * two).sum(axis=1)
    step = -(-len(query) * len(gallery) // MOST_PAIRS)
    moved = np.concatenate(
        [np.abs(one[gallery] @ one[row] - two[gallery] @ two[row]).astype(np.float32) for row in query[::step]]
    )
    return CosineChange(
        pairs=len(moved),
        mean=float(moved.mean(dtype=np.float64)),
        largest_95=float(np.quantile(moved, 0.95)),
        largest=float(moved.max()),
        own_mean=float(own.mean()),
        own_least=float(own.min()),
    )


def _units(features: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = features.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]


def check_drop(proof: Proof, most: float | None, job: ExportJob) -> None:
    """Refuses a network that lost too much.

    Args:
        proof: of it.
        most: points of mAP, in percent, that it may lose; None for any.
        job: whose file is not written then.

    Raises:
        GateError: it lost more.
    """
    drop = -100 * proof.map.difference
    if most is not None and drop > most:
        raise GateError(
            f"{job.out}: not written; mAP on {proof.dataset} drops by {drop:.2f} points, more than the {most:g} that "
            "--max-drop allows",
            hint=f"{MORE_EXACT[job.precision]}--max-drop {ceil(10 * drop) / 10:g}",
        )
