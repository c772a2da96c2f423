"""Published scores beside those of a report, and in what the two ways of testing differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from lupctl.core.choices import Version
from lupctl.core.data.catalog.datasets import CatalogEntry, find_entry
from lupctl.core.data.catalog.published import PublishedWeights, Score
from lupctl.core.data.catalog.testing import Reranking
from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.formats.pack.verdict import read_verdict
from lupctl.core.formats.weights.header import Preprocessing
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.ranking.reports.model.published import Benchmark, PublishedRerank, PublishedWay, ReportPublished
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.retrieval.lineage import KnownAs, ScoredPack

MSMT17 = "msmt17"
DISTANCES = {"cosine": "cosine", "euclidean": "Euclidean, of features as they come"}
# What is printed of a part of the published way of which ours is none.
NONE = "none"


def find_score(name: str, dataset: str) -> tuple[PublishedWeights, Score] | None:
    """A published network, and what is published for it on a benchmark; None if nothing is."""
    found = next((one for one in PUBLISHED if one.name == name), None)
    score = None if found is None else found.score_on(dataset)
    return None if found is None or score is None else (found, score)


def beside_published(report: Report, known_as: KnownAs | None, tested: Sequence[ScoredPack]) -> Report:
    """The report with what is published for its network on its benchmark; with nothing where nothing is.

    Args:
        report: the scores.
        known_as: the published network that it is of, if it is one.
        tested: the packs that were scored.
    """
    found = None if known_as is None else find_score(known_as.name, report.dataset)
    if known_as is None or found is None:
        return report.model_copy(update={"published": None})
    weights, score = found
    benchmark, remark = check_benchmark(report, tested)
    is_comparable = benchmark in ("verified", "not verified")
    ways = list(_compare_ways(report, weights))
    published = ReportPublished(
        name=weights.name,
        project=weights.project.name,
        page=weights.project.page,
        said_by=known_as.said_by,
        of="this network" if weights.use == "re-id model" else "fine-tuning from it",
        map=score.map,
        rank1=score.rank1,
        rerank=_rerank(weights.testing.reranking, score),
        benchmark=benchmark,
        remark=remark,
        map_inside=_is_inside(score.map, report.ci95.map) if is_comparable else None,
        rank1_inside=_is_inside(score.rank1, report.ci95.rank1) if is_comparable else None,
        differences=[way for way in ways if way.published],
        not_known=[way.what for way in ways if not way.published],
    )
    return report.model_copy(update={"published": published})


def check_benchmark(report: Report, tested: Sequence[ScoredPack]) -> tuple[Benchmark, str]:
    """Whether the images of a report are those of the published benchmark, and what is to be said of it."""
    entry = find_entry(report.dataset)
    if entry is None or "query" not in entry.images:
        return "unknown", "its published counts are not known to lupctl"
    pairs = _count_pairs(report, entry)
    wrong = [(role, found, wanted) for role, found, wanted in pairs if found != wanted]
    if wrong:
        numbers = ", ".join(f"{found:,} of {wanted:,} {role}" for role, found, wanted in wrong)
        if all(found < wanted for _, found, wanted in wrong):
            return "a part", f"a part of {entry.title}, {numbers}"
        return "not the published", f"not the published {entry.title}, {numbers}"
    verdicts = [None if pack.path is None else read_verdict(pack.path) for pack in tested]
    if verdicts and all(verdict is not None and verdict.sound for verdict in verdicts):
        return "verified", ""
    return "not verified", f"as many images as {entry.title}, not verified (lupctl data verify {report.dataset})"


def _count_pairs(report: Report, entry: CatalogEntry) -> list[tuple[str, int, int]]:
    """Queries and gallery images as found and published; queries are not counted where several ask as one."""
    counts = report.counts
    gallery = ("gallery images", counts.gallery + counts.junk, entry.images["gallery"])
    if report.protocol.name == "multi-query":
        return [gallery]
    return [("queries", counts.queries, entry.images["query"]), gallery]


def _is_inside(share: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= share <= interval[1]


def _rerank(rule: Reranking | None, score: Score) -> PublishedRerank | None:
    if rule is None:
        return None
    means = score.reranked or (None, None)
    return PublishedRerank(k1=rule.k1, k2=rule.k2, weight=rule.weight, base=rule.base, map=means[0], rank1=means[1])


def _compare_ways(report: Report, weights: PublishedWeights) -> Iterator[PublishedWay]:
    """What differs; where the published way is not known, that is empty."""
    record, testing = report.provenance.features, weights.testing
    pixels = read_pixels(record)
    size = "" if pixels is None else f"{pixels.height} x {pixels.width}"
    wanted = weights.tested_size
    yield from _way("size", size, None if wanted is None else f"{wanted[0]} x {wanted[1]}")
    yield from _way("filter", "" if pixels is None else pixels.interpolation, testing.interpolation)
    flip = record.get("flip")
    yield from _way("flip", "" if flip is None else _used(bool(flip)), _maybe_used(testing.flip))
    if report.protocol.expansion is not None:
        yield PublishedWay(what="expansion", ours="means over nearest neighbours", published=NONE)
    if report.protocol.name != "market1501":
        yield PublishedWay(what="protocol", ours=report.protocol.name, published="market1501")
    known = None if testing.distance is None else DISTANCES[testing.distance]
    yield from _way("distance", DISTANCES[report.protocol.distance], known)
    yield from _compare_cameras(report, uses_cameras=testing.cameras)
    yield from _compare_network(record, weights)
    if report.dataset == MSMT17:
        version = read_version(record)
        ours = "not known" if version is None else version.upper()
        yield from _way("version", ours, None if testing.msmt17 is None else testing.msmt17.upper())
    if report.rerank is not None:
        rule, theirs = report.rerank, testing.reranking
        ours = _name_rerank(Reranking(rule.k1, rule.k2, rule.weight, rule.base))
        yield from _way("re-ranking", ours, None if theirs is None else _name_rerank(theirs))


def _way(what: str, ours: str, published: str | None) -> Iterator[PublishedWay]:
    """One difference, if there is one; features made elsewhere do not say how."""
    if published is None:
        yield PublishedWay(what=what, ours=ours, published="")
    elif ours != published:
        yield PublishedWay(what=what, ours=ours or "not known", published=published)


def _used(flip: bool) -> str:
    return "with mirrored images" if flip else "without mirrored images"


def _maybe_used(flip: bool | None) -> str | None:
    return None if flip is None else _used(flip)


def _compare_cameras(report: Report, *, uses_cameras: bool | None) -> Iterator[PublishedWay]:
    use = report.camera_use
    if uses_cameras is None or (use is None and not uses_cameras):
        return
    images = 0 if use is None else use.own_row + use.unknown_row + use.mean_row + use.no_term
    own = 0 if use is None else use.own_row
    is_same = own == images > 0 if uses_cameras else own == 0
    if not is_same:
        ours = f"the row of its own camera for {own:,} of {images:,} images" if own else "no image by its own camera"
        published = "the row of its own camera for every image" if uses_cameras else "no image by its own camera"
        yield PublishedWay(what="cameras", ours=ours, published=published)


def _compare_network(record: Mapping[str, Any], weights: PublishedWeights) -> Iterator[PublishedWay]:
    """What is set of the network: SOLIDER's semantic weight, and how positions are resized where they are."""
    trunk = read_trunk(record)
    weight = weights.testing.semantic_weight
    if isinstance(trunk, SwinPlan) and trunk.semantic_weight is not None and weight is not None:
        yield from _way("semantic weight", f"{trunk.semantic_weight:g}", f"{weight:g}")
    position, pixels = weights.testing.position, read_pixels(record)
    if not isinstance(trunk, ViTPlan) or position is None or pixels is None:
        return
    if trunk.grid(pixels.height, pixels.width) != (trunk.rows, trunk.columns):
        yield from _way("resize of positions", trunk.position, position)


def read_trunk(record: Mapping[str, Any]) -> object:
    """The plan of the trunk that made some features; None where their record has none that this lupctl knows."""
    try:
        return NetworkPlan.model_validate_json(json.dumps(record.get("network"))).trunk
    except ValidationError:
        return None


def read_pixels(record: Mapping[str, Any]) -> Preprocessing | None:
    """How the images of some features were prepared; None where their record does not say it."""
    try:
        return Preprocessing.model_validate_json(json.dumps(record.get("preprocessing")))
    except ValidationError:
        return None


def read_version(record: Mapping[str, Any]) -> Version | None:
    """The version of MSMT17 that some features are of; None where nothing in their pack told the two apart."""
    return next((known for known in get_args(Version) if record.get("dataset_version") == known), None)


def _name_rerank(rule: Reranking) -> str:
    return f"k1={rule.k1} k2={rule.k2} lambda={rule.weight:g} base={rule.base}"
