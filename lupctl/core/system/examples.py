"""Naming some of many: no one reads a message with a million names in it."""

from collections.abc import Iterable, Sequence
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


def count_things(number: int, one: str, many: str = "") -> str:
    """A number with its noun, in the singular or the plural.

    >>> count_things(1, "error"), count_things(1200, "error"), count_things(0, "entry", "entries")
    ('1 error', '1,200 errors', '0 entries')

    Args:
        number: of things.
        one: a single thing.
        many: several of them; by default with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def describe_special(names: Sequence[str]) -> str:
    """That names in a folder of images are no files.

    >>> describe_special(["a.jpg"])
    '1 name is no regular file but a FIFO, a socket, a device or a link to nothing, and is left out: a.jpg'
    """
    verb, one = ("is", "and is") if len(names) == 1 else ("are", "and are")
    what = "no regular file but a FIFO, a socket, a device or a link to nothing"
    return f"{count_things(len(names), 'name')} {verb} {what}, {one} left out: {name_some(names)}"


def count_images_of(images: int, persons: int, *, what: str = "image") -> str:
    """How many images there are, of how many persons.

    >>> count_images_of(15, 1)
    '15 images of 1 person'

    Args:
        images: number of images.
        persons: number of persons on them.
        what: a single one of these images.
    """
    return f"{count_things(images, what)} of {count_things(persons, 'person')}"
