"""Description of a vision transformer in a checkpoint's header."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from lupctl.core.choices import PositionResize, Stem, ViTArch
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.fields import MOST, Count, Few, Plan
from lupctl.core.recipes.patches import ICS_PATCH, count_patches

# Length of the tokens, blocks and heads of the named vision transformers; the MLP has four times that length.
VIT_SIZES: Final[dict[ViTArch, tuple[int, int, int]]] = {
    "vit-t": (192, 12, 3),
    "vit-s": (384, 12, 6),
    "vit-b": (768, 12, 12),
}


class ViTPlan(Plan):
    """A vision transformer.

    Args:
        dim: length of its tokens.
        depth: number of blocks, with the last one, of which a jpm has two copies instead.
        heads: of its attention.
        hidden: width of a block's MLP.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the products of queries and keys; None for the inverse root of a head's length.
        stem: one convolution, or ics, four of them with norms.
        patch, stride: in pixels; ics has 16 and 16.
        rows, columns: of the grid of patches that the position embedding is for.
        position: how that is resized for images of another size.
        parts: number of part tokens after the class token.
        cameras: of the side information; 0 or 1 for none, if there is one view.
        views: rows of the table for each camera.
        side_scale: factor on the side information.
        unknown_camera: whether a learned row stands for cameras that are not in the table.
    """

    kind: Literal["vit"]
    dim: Count
    depth: Few
    heads: Few
    hidden: Count
    qkv_bias: bool
    qk_scale: Annotated[float, Field(gt=0)] | None
    stem: Stem
    patch: Few
    stride: Few
    rows: Few
    columns: Few
    position: PositionResize
    parts: Annotated[int, Field(ge=0, le=8)]
    cameras: Annotated[int, Field(ge=0, le=MOST)]
    views: Count
    side_scale: float
    unknown_camera: bool

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a dim of {self.dim}")
        if self.stem == "ics" and (self.patch, self.stride) != (ICS_PATCH, ICS_PATCH):
            raise ValueError(f"an ics stem with patch {self.patch} and stride {self.stride}; both must be {ICS_PATCH}")
        if self.unknown_camera and not self.side_rows:
            raise ValueError("a row for unknown cameras without a table of cameras")
        return self

    @property
    def arch(self) -> ViTArch | None:
        """The named architecture with tokens, heads and MLP of this size, whatever the depth; None if there is none."""
        for arch, (dim, _, heads) in VIT_SIZES.items():
            if (self.dim, self.heads, self.hidden, self.qkv_bias) == (dim, heads, 4 * dim, True):
                return arch
        return None

    @property
    def side_rows(self) -> int:
        """Rows of the table of side information; a single one would have no meaning, so there is none then."""
        rows = max(self.cameras, 1) * self.views
        return rows if rows > 1 else 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of this size; see `patch_grid`."""
        return patch_grid(height, width, self.stem, patch=self.patch, stride=self.stride)


def patch_grid(height: int, width: int, stem: Stem, *, patch: int, stride: int) -> tuple[int, int]:
    """Rows and columns of patches in an image, as the stem's convolutions cut them.

    Raises:
        UsageError: no patch fits.
    """
    rows, columns = count_patches(height, width, stem, patch=patch, stride=stride)
    if min(rows, columns) < 1:
        raise UsageError(
            f"images of {height} x {width} leave no patch of {patch} x {patch} pixels",
            hint="--set pixels.height=256 --set pixels.width=128",
        )
    return rows, columns
