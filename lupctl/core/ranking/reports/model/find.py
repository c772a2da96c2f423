"""Where a person was found: the tracklets most like the person, as JSON."""

import math
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from lupctl.core.ranking.reports.model.details import Part, ReportPoint
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.reports.model.site import ReportSitePoint, SiteReport

FIND_SCHEMA: Final = "lupctl.find/1"
# The false match rate of "same": one pair of different persons in a thousand is as near.
SAME_FPR: Final = ("0.001", "0.01")
STEPS: Final = 1000  # verdicts compare whole thousandths, so that the table and the page never differ

Verdict = Literal["same", "unsure", "other"]


class FindLimits(Part):
    """The similarities from which a tracklet is the same person, and below which it is somebody else.

    `same` is where at most a share `same_fpr` of the report's pairs of different persons are as near; `other` is the
    report's own threshold, whose error rates on the persons it was not chosen on are `false_matches` and `missed`.
    Those of a report from tracklets (`from_tracklets`) are rates of the pairs it was chosen on, and `persons` counts
    tracklets.
    """

    same: float
    other: float
    same_fpr: float
    false_matches: float
    missed: float
    dataset: str
    persons: int
    report: str
    from_tracklets: bool = False


class FindTracklet(Part):
    """A tracklet, or a single image (`person` null).

    `spans` are first and last frames of the times when the person was there, `times_s` the same in seconds from the
    beginning of the video (null where the frame rate is unknown). `similarity` is the mean over all images and all
    pictures of the person.
    """

    video: str
    person: int | None
    images: int
    spans: list[tuple[int, int]]
    times_s: list[tuple[float, float]] | None
    similarity: float
    best: str
    best_similarity: float
    verdict: Verdict | None


class FindVideo(Part):
    """A video, or all images that are from none (`name` empty).

    `similarities` counts the tracklets by similarity in whole thousandths, rounded down; `verdicts` counts them by
    verdict. `frames` and `rate` are null where unknown.
    """

    name: str
    images: int
    tracklets: int
    first_frame: int
    frames: int | None
    rate: float | None
    similarities: dict[int, int]
    verdicts: dict[Verdict, int] | None


class FindResult(Part):
    """One search for a person; `tracklets` has the most similar ones of each video, most similar first."""

    schema_name: Literal["lupctl.find/1"] = Field(default="lupctl.find/1", alias="schema")
    version: str
    command: list[str]
    queries: list[str]
    source: str
    checkpoint: str
    network: str
    fingerprints: dict[str, str]
    after_s: float | None
    before_s: float | None
    limits: FindLimits | None
    why_no_limits: str
    verdicts: dict[Verdict, int] | None
    videos: list[FindVideo]
    tracklets: list[FindTracklet]
    page: str | None


def thousandths(similarity: float) -> int:
    """A similarity in whole thousandths, rounded down.

    >>> thousandths(0.4999), thousandths(0.3), thousandths(-0.0001)
    (499, 300, -1)
    """
    return math.floor(similarity * STEPS + 1e-6)


def judge(similarity: float, limits: FindLimits) -> Verdict:
    """The verdict on a similarity."""
    value = thousandths(similarity)
    if value >= thousandths(limits.same):
        return "same"
    return "unsure" if value >= thousandths(limits.other) else "other"


def pick_limits(report: Report | SiteReport, path: str) -> FindLimits | None:
    """The limits that a report gives; None if it has too few pairs, or is of averaged features.

    The report's own threshold is the lower limit, and the distance at a false match rate of 1 in 1,000 (else 1 in 100)
    the upper one; where the threshold is the stricter of the two, both are the threshold.
    """
    if isinstance(report, SiteReport):
        point = report.threshold
        if point is None:
            return None
        return _limits(
            report.at_fpr,
            point,
            false_matches=point.fpr,
            missed=1 - point.tpr,
            dataset=report.dataset,
            persons=report.counts.tracklets,
            report=path,
            from_tracklets=True,
        )
    if report.protocol.expansion is not None or report.protocol.query != "one image":
        return None
    if report.details is None or report.details.pairs.threshold is None:
        return None
    chosen = report.details.pairs.threshold
    return _limits(
        report.details.pairs.at_fpr,
        chosen.chosen,
        false_matches=chosen.held_out.fpr,
        missed=1 - chosen.held_out.tpr,
        dataset=report.dataset,
        persons=sum(chosen.persons),
        report=path,
    )


def _limits(
    at_fpr: Mapping[str, ReportPoint | ReportSitePoint | None],
    chosen: ReportPoint | ReportSitePoint,
    *,
    false_matches: float,
    missed: float,
    dataset: str,
    persons: int,
    report: str,
    from_tracklets: bool = False,
) -> FindLimits | None:
    strict = next(((fpr, point) for fpr in SAME_FPR if (point := at_fpr.get(fpr)) is not None), None)
    if strict is None:
        return None
    distance, fpr = chosen.threshold, chosen.fpr
    if strict[1].threshold < distance:
        distance, fpr = strict[1].threshold, float(strict[0])
    return FindLimits(
        same=round(1 - distance, 3),
        other=round(1 - chosen.threshold, 3),
        same_fpr=fpr,
        false_matches=false_matches,
        missed=missed,
        dataset=dataset,
        persons=persons,
        report=report,
        from_tracklets=from_tracklets,
    )
