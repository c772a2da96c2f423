"""Naming some of many, as no one reads a message with a million names in it; and saying how many there are."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

NUM_EXAMPLES: Final = 5


def name_some(names: Iterable[object], *, between: str = ", ") -> str:
    """The first five, and whether there are more.

    >>> name_some(["a.jpg", "b.jpg"])
    'a.jpg, b.jpg'
    >>> name_some(range(1, 1000), between="; ")
    '1; 2; 3; 4; 5; ...'

    Args:
        names: of anything, read no further than needed.
        between: separator.
    """
    some = [str(name) for name in islice(names, NUM_EXAMPLES + 1)]
    return between.join([*some[:NUM_EXAMPLES], *(["..."] if len(some) > NUM_EXAMPLES else [])])


def name_rejected(entries: Iterable[dict[str, str]]) -> str:
    """The same for entries of a record's quarantine, each with its `name` and `reason`.

    >>> name_rejected([{"name": "a.jpg", "reason": "cut short"}, {"name": "b.jpg", "reason": "empty"}])
    'a.jpg: cut short; b.jpg: empty'
    """
    return name_some((f"{entry['name']}: {entry['reason']}" for entry in entries), between="; ")


def amount(number: int, noun: str) -> str:
    """A number of things in words.

    >>> amount(1, "image"), amount(1200, "image"), amount(2, "query")
    ('1 image', '1,200 images', '2 queries')

    Args:
        number: of them.
        noun: one of them.
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
