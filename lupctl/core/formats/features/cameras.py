"""What a features file records of the cameras that its network was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from lupctl.core.choices import CameraUse
from lupctl.core.system.examples import count_things

DEFAULT_USE: Final[CameraUse] = "mean"
# The entry in the record of features of a network that takes cameras.
CAMERAS_KEY: Final = "cameras"


@dataclass(frozen=True)
class CameraCounts:
    """By which rule the cameras of some images were used, and for how many images in which way.

    Args:
        rule: that was asked for.
        own_row: images with the row of their own camera.
        unknown_row: those with the row that the network learned for unknown cameras.
        mean_row: those with the mean of the rows of all cameras.
        no_term: those without any.
    """

    rule: CameraUse
    own_row: int
    unknown_row: int
    mean_row: int
    no_term: int

    def __str__(self) -> str:
        """As in a line about scores.

        >>> str(CameraCounts("mean", own_row=640, unknown_row=0, mean_row=7, no_term=0))
        'mean (640 images by the row of their own camera, 7 images by the mean of all rows)'
        """
        parts = (
            (self.own_row, "by the row of their own camera"),
            (self.unknown_row, "by the learned row for unknown cameras"),
            (self.mean_row, "by the mean of all rows"),
            (self.no_term, "without a camera's row"),
        )
        used = [f"{count_things(count, 'image')} {how}" for count, how in parts if count]
        return f"{self.rule} ({', '.join(used)})"


def read_counts(record: Mapping[str, Any]) -> CameraCounts | None:
    """What the record of some features says of their cameras; None if their network takes none, or nothing is said."""
    found = record.get(CAMERAS_KEY)
    if not isinstance(found, Mapping) or found.get("rule") not in get_args(CameraUse):
        return None
    numbers = {name: found.get(name) for name in ("own_row", "unknown_row", "mean_row", "no_term")}
    if not all(isinstance(number, int) for number in numbers.values()):
        return None
    return CameraCounts(found["rule"], **{name: int(number or 0) for name, number in numbers.items()})


def sum_counts(parts: Sequence[CameraCounts]) -> CameraCounts:
    """The counts of several files together, at least one; the rule is `known` if it was everywhere."""
    rule = parts[0].rule if len({part.rule for part in parts}) == 1 else DEFAULT_USE
    return CameraCounts(
        rule,
        own_row=sum(part.own_row for part in parts),
        unknown_row=sum(part.unknown_row for part in parts),
        mean_row=sum(part.mean_row for part in parts),
        no_term=sum(part.no_term for part in parts),
    )


def same_result(counts: CameraCounts, use: CameraUse) -> bool:
    """Whether features with these counts are those that a rule would give.

    >>> counts = CameraCounts("mean", own_row=3, unknown_row=0, mean_row=0, no_term=0)
    >>> same_result(counts, "mean"), same_result(counts, "known"), same_result(counts, "none")
    (True, True, False)
    """
    return counts.rule == use or (use != "none" and counts.unknown_row + counts.mean_row + counts.no_term == 0)
