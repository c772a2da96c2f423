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


# LUPerson, LUPerson-NL and TransReID-SSL name no duration.
PUBLISHED_COSTS: Final[tuple[PublishedCost, ...]] = (
    PublishedCost(
        method="dino",
        project="CION",
        page="https://github.com/Zplusdragon/CION_ReIDZoo",
        what="DINO with other images of a person as positives, ResNet-50-IBN, 3,898,086 images, 100 epochs",
        hours=5 * 24,
        devices="8 x V100",
    ),
)
