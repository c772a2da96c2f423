"""The grid of patches that a number of positions is of: no tensor says its sides, nor for which images it is."""

import math
import shlex
from dataclasses import dataclass
from typing import Final

from lupctl.core.choices import Stem
from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.vit_plan import patch_grid
from lupctl.core.recipes.patches import ICS_PATCH
from lupctl.core.system.examples import count_things

Size = tuple[int, int]
# Of the published networks of persons, with patches of 16 pixels; the first ones are more common.
SIZES: Final[tuple[Size, ...]] = ((256, 128), (384, 128))
STRIDES: Final = (16, 12, 11)


@dataclass(frozen=True)
class Geometry:
    """Images, and how they are cut into patches.

    Args:
        height, width: of the images.
        patch, stride: in pixels.
        stem: that cuts.
    """

    height: int
    width: int
    patch: int
    stride: int
    stem: Stem

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        return patch_grid(self.height, self.width, self.stem, patch=self.patch, stride=self.stride)

    @property
    def count(self) -> int:
        """Number of patches."""
        return math.prod(self.grid)

    def describe(self) -> str:
        """The grid and what makes it, for people.

        >>> Geometry(256, 128, patch=16, stride=12, stem="patch").describe()
        '21 x 10 (256 x 128 at stride 12)'
        """
        rows, columns = self.grid
        return f"{rows} x {columns} ({self.height} x {self.width} at stride {self.stride})"


@dataclass(frozen=True)
class Asked:
    """What a user says of a file that its tensors cannot.

    Args:
        size: height and width of the images; None for the published one.
        stride: of the patches; None for the published one.
    """

    size: Size | None = None
    stride: int | None = None

    @property
    def words(self) -> str:
        """The options as typed; empty without any."""
        size = "" if self.size is None else f"--size {self.size[0]}x{self.size[1]}"
        return f"{size} {'' if self.stride is None else f'--stride {self.stride}'}".strip()


AS_PUBLISHED: Final = Asked()


def pick_geometry(count: int, *, stem: Stem, patch: int, asked: Asked, is_start: bool, origin: str) -> Geometry:
    """The images and the stride that a number of positions is of: as asked, else the published case.

    Args:
        count: number of positions in the file, without those of class and part tokens.
        stem, patch: as the tensors say.
        asked: overrules what is published.
        is_start: of a network for other tasks, whose grid may also be square.
        origin: the file, for the error.

    Raises:
        FormatError: what was asked makes another number of patches, or nothing published makes this one.
    """
    published = list_geometries(count, stem=stem, patch=patch, asked=AS_PUBLISHED, is_start=is_start)
    wanted = list_geometries(count, stem=stem, patch=patch, asked=asked, is_start=is_start)
    for one in wanted:
        if one.count == count:
            return one
    known = next((one for one in published if one.count == count), None)
    positions = count_things(count, "position")
    shown = positions if known is None else f"a grid of {known.describe()}, {positions}"
    if not asked.words:
        raise FormatError(
            f"{origin}: {shown}; no published network has as many, and their number does not say the sides of the grid",
            hint=f"say for which images: lupctl model convert {shlex.quote(origin)} --size 256x128 --stride 12",
        )
    other = " or ".join(f"{one.describe()}, {count_things(one.count, 'position')}" for one in wanted)
    hint = "leave out --size and --stride" if known else "other sizes and strides: --size 256x128 --stride 12"
    raise FormatError(f"{origin}: the file has {shown}, but {asked.words} is {other}", hint=hint)


def list_geometries(count: int, *, stem: Stem, patch: int, asked: Asked, is_start: bool) -> list[Geometry]:
    """What the positions may be of, most likely first."""
    side = math.isqrt(max(count, 0))
    square = (side * patch, side * patch)
    sizes = [asked.size] if asked.size else [*SIZES, *([square] if is_start and side else [])]
    own = STRIDES if stem == "patch" and patch == STRIDES[0] else (patch,)
    strides = [asked.stride] if asked.stride else own
    return [
        Geometry(*size, patch=patch, stride=stride, stem=stem)
        for stride in strides
        for size in sizes
        if min(size) >= patch
    ]


def check_asked(asked: Asked, *, stem: Stem, patch: int, origin: str) -> None:
    """Fails for a size or a stride that a stem cannot have.

    Raises:
        UsageError: no patch fits into the images, or the stem of convolutions has another stride than 16.
    """
    if asked.size is not None and min(asked.size) < patch:
        height, width = asked.size
        raise UsageError(
            f"{origin}: images of {height} x {width} leave no patch of {patch} x {patch} pixels", hint="--size 256x128"
        )
    if stem == "ics" and asked.stride not in (None, ICS_PATCH):
        raise UsageError(
            f"{origin}: has the stem of convolutions (ICS), whose stride is {ICS_PATCH}; --stride {asked.stride} "
            "would change the grid, not the convolutions",
            hint="leave out --stride",
        )
