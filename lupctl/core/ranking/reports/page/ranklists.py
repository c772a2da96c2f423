"""Queries with their nearest gallery images, as a page shows them."""

from dataclasses import dataclass
from typing import Literal

from lupctl.core.ranking.retrieval.picking import Ease

Verdict = Literal["right", "wrong", "ignored"]


@dataclass(frozen=True)
class Shown:
    """One image of a list.

    Args:
        name: path relative to the dataset's root.
        person, camera: whom it shows, and which camera took it.
        picture: a data URI; None if the image is not available.
        distance: to the query, 1 - cos or after re-ranking; None for the query itself.
        verdict: whether it is a right answer, a wrong one, or counts neither way; None for the query itself.
        rank: 1-based among the images that count; None for those that do not.
        attention: where the network looks in it, a data URI; None without attention maps.
    """

    name: str
    person: int
    camera: int
    picture: str | None
    distance: float | None = None
    verdict: Verdict | None = None
    rank: int | None = None
    attention: str | None = None


@dataclass(frozen=True)
class RankRow:
    """The gallery images that rank first for a query, by one of the distances.

    Args:
        ap: average precision of the query (step rule) by this distance.
        nearest: the first images, nearest first.
        first_right: the first right answer, if it ranks after those.
    """

    ap: float
    nearest: tuple[Shown, ...]
    first_right: Shown | None


@dataclass(frozen=True)
class RankList:
    """A query and the gallery images that rank first for it.

    Args:
        ease: why it was chosen.
        query: the query.
        right: right answers in the gallery.
        plain: by the distances of the features, including a few ignored images.
        reranked: after re-ranking, if that was computed; without ignored images.
    """

    ease: Ease
    query: Shown
    right: int
    plain: RankRow
    reranked: RankRow | None
