"""What has to be known before scores are trusted or passed on."""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from lupctl.core.ranking.reports.model.details import Part

# In the order in which they are shown: what makes scores wrong, what makes them uncomparable, what has to be respected.
WarningKind = Literal[
    "overlap",
    "persons",
    "pretraining",
    "not checked",
    "verification",
    "published",
    "queries",
    "reranking",
    "notice",
    "terms",
]
KINDS: Final[tuple[WarningKind, ...]] = get_args(WarningKind)
# Test images, or persons, that were trained on with their labels.
LEAKS: Final[tuple[WarningKind, ...]] = ("overlap", "persons")


class ReportWarning(Part):
    """One of them: a fixed kind, for scripts, and one line for a person."""

    kind: WarningKind
    text: str


def sort_warnings(warnings: Iterable[ReportWarning]) -> list[ReportWarning]:
    """Each once, in the order of the kinds and then of the texts.

    >>> late, early = ReportWarning(kind="terms", text="a"), ReportWarning(kind="overlap", text="b")
    >>> [warning.kind for warning in sort_warnings([late, early, late])]
    ['overlap', 'terms']
    """
    unique = {(warning.kind, warning.text): warning for warning in warnings}
    return sorted(unique.values(), key=lambda warning: (KINDS.index(warning.kind), warning.text))
