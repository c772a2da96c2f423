"""The report on a site without labels."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from lupctl.core.formats.features.precision import describe_bf16_features
from lupctl.core.ranking.metrics.bootstrap import DRAWS, SEED
from lupctl.core.ranking.metrics.operating import WANTED_FPR
from lupctl.core.ranking.metrics.pairs import STEP
from lupctl.core.ranking.reports.build.single import STEPS_PER_BIN, histogram
from lupctl.core.ranking.reports.model.single import ReportProvenance
from lupctl.core.ranking.reports.model.site import (
    ReportSiteAcross,
    ReportSiteCounts,
    ReportSitePoint,
    SiteReport,
)
from lupctl.core.ranking.site.across import Across
from lupctl.core.ranking.site.distances import SiteDistances
from lupctl.core.ranking.site.points import SitePoint, site_points
from lupctl.core.ranking.site.scores import score_site

# The other scores are the shares found at the report's thresholds.
WITHOUT_THRESHOLD: Final = ("auc", "rank1")
# Intervals over fewer tracklets say little themselves.
FEW_TRACKLETS: Final = 30
ASSUMES: Final = (
    "each tracklet shows one person; where a tracker swaps two people, the threshold is too strict",
    "pairs of one person are of one camera and one visit; across cameras or days fewer are found",
    "people seen together stand for all strangers; how near those of other cameras or days come is not known",
)
TRAINED_ON: Final = "the network was trained on these images: on new ones of this site it does worse"


def build_site(
    found: SiteDistances,
    across: Across | None,
    record: Mapping[str, Any],
    *,
    images: int,
    wanted_fpr: float | None,
    trained_on: bool,
    fingerprints: Mapping[str, str],
    command: Sequence[str],
) -> SiteReport:
    """The report on a site.

    Args:
        found: distances of its pairs.
        across: pairs of two cameras, if there are two.
        record: of the features.
        images: that have features.
        wanted_fpr: false match rate of the threshold; None chooses equal error rates.
        trained_on: whether the network has seen the images in training.
        fingerprints: of all inputs.
        command: the command line.
    """
    pairs, counts, scores = found.pairs, found.counts(), score_site(found)
    chosen, *points = site_points(found, [wanted_fpr, *WANTED_FPR])
    few = f"{pairs.num_tracklets} tracklets are few: the intervals are rough"
    dataset = str(record.get("dataset", "unknown"))
    rounded = describe_bf16_features(record, dataset)
    return SiteReport(
        dataset=dataset,
        counts=ReportSiteCounts(
            images=images,
            tracklets=pairs.num_tracklets,
            short=pairs.short,
            together=pairs.together,
            same=int(counts[0][-1]),
            different=int(counts[1][-1]),
        ),
        scores={name: value for name, value in scores.scores.items() if name in WITHOUT_THRESHOLD},
        ci95={name: span for name, span in scores.ci95.items() if name in WITHOUT_THRESHOLD},
        rule="equal error" if wanted_fpr is None else "false positive rate",
        wanted_fpr=wanted_fpr,
        threshold=_point(chosen),
        at_fpr={f"{wanted:g}": _point(point) for wanted, point in zip(WANTED_FPR, points, strict=True)},
        across=_across(across, chosen),
        bin=STEP * STEPS_PER_BIN,
        same_counts=histogram(counts[0]),
        different_counts=histogram(counts[1]),
        draws=DRAWS,
        seed=SEED,
        assumes=list(ASSUMES),
        warnings=[
            *([TRAINED_ON] if trained_on else []),
            *([few] if pairs.num_tracklets < FEW_TRACKLETS else []),
            *([rounded] if rounded else []),
        ],
        fingerprints=dict(fingerprints),
        provenance=ReportProvenance(version=version("lupctl"), command=list(command), features=dict(record)),
    )


def _point(found: SitePoint | None) -> ReportSitePoint | None:
    if found is None:
        return None
    span = found.threshold_ci95
    return ReportSitePoint(
        threshold=found.point.threshold,
        threshold_ci95=None if span is None else (round(span[0], 3), round(span[1], 3)),
        fpr=found.point.fpr,
        tpr=found.point.tpr,
        tpr_ci95=found.tpr_ci95,
    )


def _across(across: Across | None, chosen: SitePoint | None) -> ReportSiteAcross | None:
    if across is None:
        return None
    is_known = chosen is not None and len(across.distance) > 0
    return ReportSiteAcross(
        pairs=len(across.pairs),
        found_again=across.found_again,
        near=float(np.mean(across.distance <= chosen.point.threshold)) if is_known and chosen else None,
    )
