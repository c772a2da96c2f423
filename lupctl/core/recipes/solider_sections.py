"""The section of SOLIDER, which is self-distillation (`[dino]`) that also learns where body parts are."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from lupctl.core.choices import Arch, PartHead, SwinArch
from lupctl.core.recipes.sections import MisfitError, Net, Pixels, Positive, Section
from lupctl.core.recipes.swin_sections import NUM_STAGES, SWIN_ARCHS, PretrainSwin, is_swin

# Of dino, what decides the shapes of its head.
HEAD_KEYS: Final = ("outputs", "hidden", "bottleneck")

# The recipe of each size.
SOLIDER_OF_ARCH: Final[Mapping[SwinArch, str]] = {
    "swin-u": "small-solider",
    "swin-t": "solider-swin-t",
    "swin-s": "solider-swin-s",
    "swin-b": "solider-swin-b",
}


class SoliderSettings(Section):
    """Body parts for self-distillation, and how strongly they are learned. The defaults are those of SOLIDER.

    Args:
        start: a run of dino or solider, or its method file; scratch, or empty for the newest run of dino that fits.
        parts: R, found from top to bottom; published with 3.
        part_head: frozen is a random projection that stays, as in the published code; trained learns with the network.
        part_hidden, part_bottleneck: widths of this head's two layers before the last, and of what it normalises.
        weight: of the loss on parts, which only images with a semantic weight of 1 have.
        foreground: a view is used if more than this share of its tokens shows a person.
        restarts: of k-means, of which the best is taken.
    """

    start: str = ""
    parts: Annotated[int, Field(ge=1, le=16)] = 3
    part_head: PartHead = "frozen"
    part_hidden: Positive = 2048
    part_bottleneck: Positive = 256
    weight: Annotated[float, Field(ge=0)] = 1.0
    foreground: Annotated[float, Field(ge=0, lt=1)] = 0.5
    restarts: Annotated[int, Field(ge=1, le=100)] = 10


def check_method_trunk(tables: Mapping[str, Any], default: Arch) -> None:
    """Refuses a recipe of SOLIDER for another trunk than a Swin.

    Args:
        tables: of the recipe, not checked yet.
        default: architecture of a recipe that names none.

    Raises:
        MisfitError: names it.
    """
    if tables.get("method") != "solider":
        return
    net = tables.get("net", {})
    written = net.model_dump(exclude_unset=True) if isinstance(net, Net) else net
    arch = written.get("arch", default) if isinstance(written, Mapping) else default
    if not is_swin(arch):
        names = f"{', '.join(SWIN_ARCHS[:-1])} and {SWIN_ARCHS[-1]}"
        raise MisfitError(f"method = solider trains {names}; this recipe's net.arch is {arch}", hint="--arch swin-t")


def check_solider(swin: PretrainSwin, pixels: Pixels, solider: SoliderSettings) -> None:
    """Refuses a trunk without a semantic controller, and maps that are too small for body parts.

    Raises:
        MisfitError: names the key, and a value that fits.
    """
    if swin.semantic_weight == "none":
        raise MisfitError(
            "swin.semantic_weight = 'none' has no semantic controller, which solider trains",
            hint="--set swin.semantic_weight=0.0",
        )
    cell = swin.patch << (NUM_STAGES - 1)  # every merging halves both sides, rounded up
    rows, columns = -(-pixels.height // cell), -(-pixels.width // cell)
    if int(rows * columns * solider.foreground) + 1 < solider.parts or rows * columns < 2:
        raise MisfitError(
            f"pixels.height = {pixels.height}, pixels.width = {pixels.width} give a last map of {rows} x {columns}, "
            f"too small for solider.parts = {solider.parts}",
            hint=f"--set pixels.height={8 * cell} --set pixels.width={4 * cell}",
        )
