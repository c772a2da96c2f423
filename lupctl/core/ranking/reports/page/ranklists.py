"""Queries with their nearest gallery images, as a page shows them."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "wrong", "ignored"]
Ease = Literal["hardest", "easiest"]


@dataclass(frozen=True)
class Shown:
    """One image of a list.

    Args:
        name: path relative to the dataset's root.
        person, camera: whom it shows, and which camera took it.
        picture: a data URI; None if the image is not available.
        distance: 1 - cos to the query; None for the query itself.
        verdict: whether it is a right answer, a wrong one, or counts neither way; None for the query itself.
        rank: 1-based among the images that count; None for those that do not.
    """

    name: str
    person: int
    camera: int
    picture: str | None
    distance: float | None = None
    verdict: Verdict | None = None
    rank: int | None = None


@dataclass(frozen=True)
class RankList:
    """A query and the gallery images that rank first for it.

    Args:
        ease: why it was chosen.
        query: the query.
        ap: its average precision (step rule, without re-ranking).
        right: right answers in the gallery.
        nearest: the first images, nearest first, including a few ignored ones.
        first_right: the first right answer, if it ranks after those.
    """

    ease: Ease
    query: Shown
    ap: float
    right: int
    nearest: tuple[Shown, ...]
    first_right: Shown | None
