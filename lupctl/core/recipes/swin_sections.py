"""The section that only recipes of Swin transformers have, and the checks that keep its keys apart from others."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, field_validator

from lupctl.core.choices import Arch, SwinArch
from lupctl.core.recipes.sections import Net, Positive, Section
from lupctl.core.recipes.vit_sections import RESNET_KEYS

SWIN_ARCHS: Final[tuple[SwinArch, ...]] = get_args(SwinArch)
NUM_STAGES: Final = 4
# Of both data sets in SOLIDER's fine-tuning.
TUNED_WEIGHT: Final = 0.2
Weight = float | Literal["none"]


class SwinNet(Section):
    """A Swin transformer.

    Args:
        patch: height and width of a patch in pixels.
        window: height and width of an attention window in tokens.
        depths: number of blocks of each of the four stages; empty is the architecture's.
        semantic_weight: of SOLIDER's semantic controller, from 0, what images look like, to 1, what they show; none has
            no controller.
    """

    patch: Positive = 4
    window: Annotated[int, Field(ge=2, le=64)] = 7
    depths: tuple[Annotated[int, Field(ge=1, le=48)], ...] = ()
    semantic_weight: Weight = 0.0

    @field_validator("semantic_weight", mode="before")
    @classmethod
    def _check_weight(cls, weight: object) -> object:
        if weight == "none" or (type(weight) in (int, float) and 0 <= weight <= 1):  # type: ignore[operator]
            return weight
        raise ValueError("a number from 0 to 1, or none, is expected")


class PretrainSwin(SwinNet):
    """A Swin transformer that is pre-trained.

    Args:
        drop_path: stochastic depth of the network that dino and solider train: probability of leaving out a branch of
            the last block, falling to 0 at the first; 0 with other methods.
    """

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0


class FinetuneSwin(SwinNet):
    """A Swin transformer that is fine-tuned.

    Args:
        train_controller: whether the semantic controller learns, too; as published it stays as it was pre-trained.
        drop_path: stochastic depth: probability of leaving out a branch of the last block, falling to 0 at the first.
    """

    semantic_weight: Weight = TUNED_WEIGHT
    train_controller: bool = False
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1


def is_swin(arch: object) -> bool:
    """Whether a name is that of a Swin transformer."""
    return arch in SWIN_ARCHS


def check_swin_section(tables: Mapping[str, Any], default: Arch) -> dict[str, Any]:
    """The tables of a recipe, with [swin] added for a Swin transformer and refused for another trunk.

    >>> check_swin_section({"net": {"arch": "swin-t"}}, "r50")
    {'net': {'arch': 'swin-t'}, 'swin': {}}
    >>> check_swin_section({"swin": {}}, "r50")
    Traceback (most recent call last):
    ...
    ValueError: [swin] is a section of swin-u, swin-t, swin-s and swin-b; this recipe's net.arch is r50

    Args:
        tables: of the recipe, not checked yet.
        default: architecture of a recipe that names none.

    Raises:
        ValueError: there is a [swin], and the trunk is of another family.
    """
    net = tables.get("net", {})
    written = net.model_dump(exclude_unset=True) if isinstance(net, Net) else net
    arch = written.get("arch", default) if isinstance(written, Mapping) else default
    if is_swin(arch):
        return {**tables, "swin": {} if tables.get("swin") is None else tables["swin"]}
    if tables.get("swin") is not None:
        names = f"{', '.join(SWIN_ARCHS[:-1])} and {SWIN_ARCHS[-1]}"
        raise ValueError(f"[swin] is a section of {names}; this recipe's net.arch is {arch}")
    return dict(tables)


def check_swin(net: Net, swin: SwinNet | None) -> None:
    """Refuses a Swin that cannot be built, and keys of the other families.

    Raises:
        ValueError: names the key.
    """
    if swin is None:
        return
    for key in RESNET_KEYS:
        info = type(net).model_fields.get(key)
        if info is not None and (found := net.model_dump()[key]) != info.default:
            raise ValueError(
                f"net.{key} = {found} is of residual networks; net.arch is {net.arch}: "
                "lupctl recipe list has recipes for it"
            )
    head = net.model_dump().get("head", "bnneck")
    if head != "bnneck":
        raise ValueError(f"net.head = '{head}' is not of swins, which have bnneck; net.arch is {net.arch}")
    if swin.depths and len(swin.depths) != NUM_STAGES:
        raise ValueError(f"swin.depths = {list(swin.depths)}; a Swin has {NUM_STAGES} stages, as in [2, 2, 6, 2]")
    if isinstance(swin, FinetuneSwin) and swin.train_controller and swin.semantic_weight == "none":
        raise ValueError("swin.train_controller = true needs a controller; swin.semantic_weight is none")
