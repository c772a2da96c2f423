"""What recipes of OSNets may say, and the images that these networks take."""

from typing import Final, get_args

from lupctl.core.choices import OsnetArch
from lupctl.core.recipes.sections import MisfitError, Net, Pixels
from lupctl.core.recipes.vit_sections import RESNET_KEYS

OSNET_ARCHS: Final[tuple[OsnetArch, ...]] = get_args(OsnetArch)
OSNET_HEADS: Final = ("fc", "bnneck")


def is_osnet(arch: object) -> bool:
    """Whether a name is that of an OSNet."""
    return arch in OSNET_ARCHS


def osnet_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an OSNet's last map; 0 where an image is too small.

    >>> osnet_grid(256, 128), osnet_grid(15, 12)
    ((16, 8), (1, 0))
    """
    # Stem and pooling round up, the layers between stages round down.
    rows, columns = ((side + 3) // 4 // 2 // 2 for side in (height, width))
    return rows, columns


def takes_images(arch: str, height: int, width: int) -> bool:
    """Whether an OSNet can be given images of this size: one with instance norms on its last map needs two cells of it.

    >>> takes_images("osnet-x0.25", 16, 16), takes_images("osnet-ain-x0.25", 16, 16)
    (True, False)
    """
    rows, columns = osnet_grid(height, width)
    return rows * columns > (1 if arch.startswith("osnet-ain-") else 0)


def check_osnet(net: Net, pixels: Pixels) -> None:
    """Refuses an OSNet that cannot be built, keys of other networks, and its head on another trunk.

    Raises:
        ValueError: names the key.
    """
    head = net.model_dump().get("head", "bnneck")
    if not is_osnet(net.arch):
        if head == "fc":
            raise MisfitError(
                f"net.head = 'fc' is of OSNets; net.arch is {net.arch}", hint="--set net.head=bnneck, or --recipe bot"
            )
        return
    for key in RESNET_KEYS:
        info = type(net).model_fields.get(key)
        if info is not None and (found := net.model_dump()[key]) != info.default:
            raise ValueError(
                f"net.{key} = {found} is of residual networks; net.arch is {net.arch}: "
                "lupctl recipe list has recipes for it"
            )
    if head not in OSNET_HEADS:
        raise ValueError(f"net.head = '{head}' is not of OSNets, which have fc or bnneck; net.arch is {net.arch}")
    if head == "fc" and net.model_dump()["feature"] != "after":
        raise MisfitError(
            f"net.feature = '{net.model_dump()['feature']}' is of bnneck and jpm; net.head is fc",
            hint="--set net.feature=after",
        )
    if not takes_images(net.arch, pixels.height, pixels.width):
        raise ValueError(
            f"pixels.height = {pixels.height}, pixels.width = {pixels.width} leave too little of the last map of "
            f"{net.arch}, which has a cell for 16 x 16 pixels"
        )
