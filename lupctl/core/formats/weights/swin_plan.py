"""Description of a Swin transformer in a checkpoint's header."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from lupctl.core.choices import SwinArch
from lupctl.core.formats.weights.fields import Count, Few, Plan

Stages = tuple[Few, Few, Few, Few]
# Channels, blocks and heads of the stages of the named Swins; channels double from stage to stage, and every head has
# 32 of them. The smallest is lupctl's own, for small data and small machines.
SWIN_SIZES: Final[dict[SwinArch, tuple[int, Stages, Stages]]] = {
    "swin-u": (32, (2, 2, 2, 2), (1, 2, 4, 8)),
    "swin-t": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin-s": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin-b": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
# Sides of patch and window of every published network of this dialect.
PATCH: Final = 4
WINDOW: Final = 7


class SwinPlan(Plan):
    """A Swin transformer in SOLIDER's dialect, with an MLP four times as wide as its tokens.

    Args:
        dim: channels of the first stage; every further one has twice as many as the one before.
        depths: number of blocks of each stage.
        heads: of the attention in each stage.
        patch: side of a patch in pixels.
        window: side of a window in tokens.
        semantic_weight: of SOLIDER's semantic controller, for images that come without one; None for no controller.
    """

    kind: Literal["swin"]
    dim: Count
    depths: Stages
    heads: Stages
    patch: Few
    window: Annotated[int, Field(ge=2, le=64)]
    semantic_weight: Annotated[float, Field(ge=0, le=1)] | None

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        for channels, heads in zip(self.dims, self.heads, strict=True):
            if channels % heads:
                raise ValueError(f"{heads} heads do not divide a dim of {channels}")
        return self

    @property
    def dims(self) -> Stages:
        """Channels of the stages."""
        return self.dim, 2 * self.dim, 4 * self.dim, 8 * self.dim

    @property
    def cell(self) -> int:
        """Side in pixels of what a token of the last map shows."""
        return self.patch << (len(self.depths) - 1)

    @property
    def arch(self) -> SwinArch | None:
        """The named architecture with these channels, heads and blocks, or the first with these channels and heads.

        swin-t and swin-s differ in their blocks alone.
        """
        alike = [arch for arch, (dim, _, heads) in SWIN_SIZES.items() if (self.dim, self.heads) == (dim, heads)]
        return next((arch for arch in alike if SWIN_SIZES[arch][1] == self.depths), alike[0] if alike else None)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the last map: patches that do not fit are padded, and so is every odd side on the way.

        >>> plan_swin("swin-t").grid(256, 128), plan_swin("swin-t").grid(100, 30)
        ((8, 4), (4, 1))
        """
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        for _ in range(len(self.depths) - 1):
            rows, columns = -(-rows // 2), -(-columns // 2)
        return rows, columns


def plan_swin(
    arch: SwinArch,
    *,
    depths: tuple[int, ...] = (),
    patch: int = PATCH,
    window: int = WINDOW,
    semantic_weight: float | None = None,
) -> SwinPlan:
    """A Swin of a named size.

    Args:
        arch: gives channels and heads.
        depths: blocks of its four stages; empty for the architecture's.
        patch, window, semantic_weight: see `SwinPlan`.
    """
    dim, own, heads = SWIN_SIZES[arch]
    one, two, three, four = depths or own
    return SwinPlan(
        kind="swin",
        dim=dim,
        depths=(one, two, three, four),
        heads=heads,
        patch=patch,
        window=window,
        semantic_weight=semantic_weight,
    )


def describe_swin(plan: SwinPlan) -> str:
    """A short description.

    >>> describe_swin(plan_swin("swin-b", semantic_weight=0.2)), describe_swin(plan_swin("swin-u", patch=2, window=4))
    ('swin-b semantic weight 0.2', 'swin-u patch 2 window 4')
    """
    parts = [plan.arch or f"swin {plan.dim}"]
    if plan.arch is None or plan.depths != SWIN_SIZES[plan.arch][1]:
        parts.append("depths " + "-".join(map(str, plan.depths)))
    if plan.patch != PATCH:
        parts.append(f"patch {plan.patch}")
    if plan.window != WINDOW:
        parts.append(f"window {plan.window}")
    if plan.semantic_weight is not None:
        parts.append(f"semantic weight {plan.semantic_weight:g}")
    return " ".join(parts)
