"""What authors say their pre-training cost. Nothing is computed here: where nothing is published, there is no entry."""

from dataclasses import dataclass
from typing import Final

from lupctl.core.choices import Method


@dataclass(frozen=True)
class PublishedCost:
    """A duration as published.

    Args:
        method: ours that it is closest to.
        project: name.
        page: where it says so.
        what: the training.
        hours: about how long.
        devices: on what.
    """

    method: Method
    project: str
    page: str
    what: str
    hours: float
    devices: str


PUBLISHED_COSTS: Final[tuple[PublishedCost, ...]] = ()
