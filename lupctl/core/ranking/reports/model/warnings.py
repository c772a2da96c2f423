"""What has to be known before scores are trusted or passed on."""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from lupctl.core.ranking.reports.model.details import Part

# In the order in which they are shown: what makes scores wrong, what makes them hard to compare, what to respect.
WarningKind = Literal[
    "overlap",
    "persons",
    "closed set",
    "pretraining",
    "not checked",
    "verification",
    "published",
    "cameras",
    "precision",
    "queries",
    "reranking",
    "notice",
    "terms",
]
KINDS: Final[tuple[WarningKind, ...]] = get_args(WarningKind)
# Test images, or persons, that were trained on with their labels.
LEAKS: Final[tuple[WarningKind, ...]] = ("overlap", "persons")
# Warnings about a network on a test set, and about a test set whose text does not name it.
OF_THE_PAIR: Final[tuple[WarningKind, ...]] = (
    *LEAKS,
    "closed set",
    "pretraining",
    "not checked",
    "cameras",
    "precision",
)
OF_THE_SET: Final[tuple[WarningKind, ...]] = ("queries", "reranking")


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


def gather_warnings(reports: Iterable[tuple[str, str, Iterable[ReportWarning]]]) -> list[tuple[str, ReportWarning]]:
    """The warnings of several reports, each once, with the run or the test set it is about where its text does not say.

    >>> mine = ReportWarning(kind="overlap", text="a"), ReportWarning(kind="terms", text="b")
    >>> [(about, warning.kind) for about, warning in gather_warnings([("one", "set", mine), ("two", "set", mine)])]
    [('one', 'overlap'), ('two', 'overlap'), ('', 'terms')]

    Args:
        reports: the run, the dataset and the warnings of each.
    """
    unique: dict[tuple[str, ReportWarning], None] = {}
    for run, dataset, warnings in reports:
        for warning in warnings:
            about = run if warning.kind in OF_THE_PAIR else dataset if warning.kind in OF_THE_SET else ""
            unique[about, warning] = None
    return sorted(unique, key=lambda found: (KINDS.index(found[1].kind), found[0], found[1].text))
