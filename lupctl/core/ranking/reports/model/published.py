"""What is published for the network of a report, beside its own scores, and what differs between the two ways."""

from typing import Literal

from lupctl.core.choices import RerankBase
from lupctl.core.ranking.reports.model.details import Part

# A file that is evaluated again lands this near to its published scores, which are rounded.
ROUNDING = 0.0005
# Whether the images are those of the published benchmark.
Benchmark = Literal["verified", "not verified", "a part", "not the published", "unknown"]


class PublishedWay(Part):
    """One thing in which the published way of testing differs from that of the report; `what` names it."""

    what: str
    ours: str
    published: str


class PublishedRerank(Part):
    """Published scores after re-ranking, by these constants; the scores are null where they are not known."""

    k1: int
    k2: int
    weight: float
    base: RerankBase
    map: float | None
    rank1: float | None


class ReportPublished(Part):
    """The published scores of a network on the report's benchmark, as fractions, without re-ranking.

    `said_by` is how the network is known: by the note of its `download`, by its `file name`, or by what the `user`
    says. `of` is whether the scores are of this very file, or of what fine-tuning from it gave its authors.
    `benchmark` is whether the images are the published ones, with `remark` in words; only where they are, the scores
    are comparable, and `map_inside` and `rank1_inside` say whether the published ones are inside the intervals of ours.
    `differences` are things in which the two ways of testing differ, `not_known` those of which the published way is
    not known.
    """

    name: str
    project: str
    page: str
    said_by: Literal["download", "file name", "user"]
    of: Literal["this network", "fine-tuning from it"]
    map: float
    rank1: float
    rerank: PublishedRerank | None
    benchmark: Benchmark
    remark: str
    map_inside: bool | None
    rank1_inside: bool | None
    differences: list[PublishedWay]
    not_known: list[str]

    @property
    def is_comparable(self) -> bool:
        """Whether the images are as many as those of the published benchmark."""
        return self.benchmark in ("verified", "not verified")


def describe_published(found: ReportPublished, *, own: str = "our") -> list[str]:
    """Lines on the published scores: what they are of, whether they are those of the report, and what differs.

    Args:
        found: the published scores.
        own: whose intervals they are compared with.
    """
    of = "" if found.of == "this network" else ", what fine-tuning from it gave its authors"
    title = f"published: {found.name} of {found.project}{of}{SAID_BY[found.said_by]}"
    if not found.is_comparable:
        return [f"{title}: not comparable: {found.remark}", *_describe_ways(found)]
    where = [
        f"{name} {100 * share:.2f} is {'inside' if inside else 'outside'} {own} interval"
        for name, share, inside in (
            ("mAP", found.map, found.map_inside),
            ("rank-1", found.rank1, found.rank1_inside),
        )
    ]
    remark = f"; {found.remark}" if found.remark else ""
    return [f"{title}: {', '.join(where)}{remark}", *_describe_ways(found)]


SAID_BY = {"download": "", "file name": " (by the name of its file)", "user": " (as --published says)"}


def _describe_ways(found: ReportPublished) -> list[str]:
    lines = [f"not the published way: {one.what}: {one.ours}; published: {one.published}" for one in found.differences]
    if found.not_known:
        lines.append(f"not known of the published way: {', '.join(found.not_known)}")
    return lines
