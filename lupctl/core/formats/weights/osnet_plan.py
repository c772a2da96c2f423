"""Description of an OSNet in a checkpoint's header."""

from typing import Final, Literal, NamedTuple

from lupctl.core.choices import OsnetArch
from lupctl.core.formats.weights.fields import Plan

# What is normalised per image: nothing, the stem and the first stage's sums, or what a search over blocks found.
OsnetKind = Literal["plain", "ibn", "ain"]


class OsnetSize(NamedTuple):
    """The kind of an OSNet, and the channels of its stem and of its three stages."""

    kind: OsnetKind
    widths: tuple[int, int, int, int]


OSNET_SIZES: Final[dict[OsnetArch, OsnetSize]] = {
    "osnet-x1.0": OsnetSize("plain", (64, 256, 384, 512)),
    "osnet-x0.75": OsnetSize("plain", (48, 192, 288, 384)),
    "osnet-x0.5": OsnetSize("plain", (32, 128, 192, 256)),
    "osnet-x0.25": OsnetSize("plain", (16, 64, 96, 128)),
    "osnet-ibn-x1.0": OsnetSize("ibn", (64, 256, 384, 512)),
    "osnet-ain-x1.0": OsnetSize("ain", (64, 256, 384, 512)),
    "osnet-ain-x0.75": OsnetSize("ain", (48, 192, 288, 384)),
    "osnet-ain-x0.5": OsnetSize("ain", (32, 128, 192, 256)),
    "osnet-ain-x0.25": OsnetSize("ain", (16, 64, 96, 128)),
}


class OsnetPlan(Plan):
    """An OSNet of a named size.

    Args:
        arch: gives its kind and channels.
    """

    kind: Literal["osnet"]
    arch: OsnetArch
