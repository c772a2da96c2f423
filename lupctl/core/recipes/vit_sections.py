"""Sections that only recipes of vision transformers have, and the checks that keep the keys of each family apart."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self, get_args

from pydantic import Field, model_validator

from lupctl.core.choices import Arch, PositionResize, Stem, ViTArch
from lupctl.core.recipes.finetune_sections import FinetuneNet
from lupctl.core.recipes.patches import ICS_PATCH, count_patches
from lupctl.core.recipes.sections import Net, Pixels, Positive, Section

VIT_ARCHS: Final[tuple[ViTArch, ...]] = get_args(ViTArch)
# Keys of a residual trunk, or of an mgn, which takes one apart.
RESNET_KEYS: Final = ("width", "last_stride", "ibn", "embedding", "extra_bn")


class VitNet(Section):
    """A vision transformer.

    Args:
        stem: patch is one convolution, ics TransReID-SSL's convolutional stem with IBN.
        patch: height and width of a patch in pixels.
        stride: pixels from patch to patch; less than `patch` lets them overlap.
        depth: number of blocks; 0 is the architecture's, 12.
        parts: part tokens next to the class token, 3 in PASS.
        position: how the position embedding of a start is resized to another grid: bilinear as in TransReID's
            fine-tuning, dino is bicubic with DINO's scale factors.
    """

    stem: Stem = "patch"
    patch: Positive = 16
    stride: Positive = 16
    depth: Annotated[int, Field(ge=0, le=48)] = 0
    parts: Annotated[int, Field(ge=0, le=8)] = 0
    position: PositionResize = "bilinear"


class PretrainVit(VitNet):
    """A vision transformer that is pre-trained.

    Args:
        drop_path: stochastic depth of the network that dino trains: probability of leaving out a branch of the last
            block, falling to 0 at the first; 0 with other methods.
    """

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0


class FinetuneVit(VitNet):
    """A vision transformer that is fine-tuned.

    Args:
        drop_path: stochastic depth: probability of leaving out a branch of the last block, falling to 0 at the first.
    """

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1


class SieSettings(Section):
    """TransReID's side information embedding: a learned vector of each camera, added to every token.

    Args:
        cameras: whether there is one.
        scale: factor on it.
        unknown: share of training images whose camera is hidden, from which the vector of unknown cameras is learned;
            0 has no such vector, as published.
    """

    cameras: bool = False
    scale: float = 3.0
    unknown: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_unknown(self) -> Self:
        if self.unknown and not self.cameras:
            raise ValueError(
                f"unknown = {self.unknown} hides cameras from a network that takes none; cameras = true is expected"
            )
        return self


class JpmSettings(Section):
    """TransReID's jigsaw patch module: the last block also sees shuffled groups of patches.

    Args:
        shift: patches that move from the front to the end, plus 1, as the published code counts.
        groups: rows of the shuffle.
        parts: groups of patches, each of which gives a feature.
    """

    shift: Annotated[int, Field(ge=1)] = 5
    groups: Annotated[int, Field(ge=2)] = 2
    parts: Annotated[int, Field(ge=1, le=16)] = 4


def is_vit(arch: object) -> bool:
    """Whether a name is that of a vision transformer."""
    return arch in VIT_ARCHS


def typed_arch(arch: Arch, vit: VitNet | None) -> str:
    """An architecture as it is typed after `--arch`, and as runs are named after it: with its stem if that is ics.

    >>> typed_arch("vit-s", VitNet(stem="ics")), typed_arch("vit-s", VitNet()), typed_arch("r50", None)
    ('vit-s-ics', 'vit-s', 'r50')
    """
    return f"{arch}-ics" if vit is not None and vit.stem == "ics" else arch


def check_arch_sections(tables: Mapping[str, Any], default: Arch, *, own: Sequence[str] = ("vit",)) -> dict[str, Any]:
    """The tables of a recipe, with what a vision transformer needs added and what another trunk lacks refused.

    >>> check_arch_sections({"net": {"arch": "vit-s"}}, "r50")
    {'net': {'arch': 'vit-s', 'pooling': 'token'}, 'vit': {}}
    >>> check_arch_sections({"vit": {}}, "r50")
    Traceback (most recent call last):
    ...
    ValueError: [vit] is a section of vit-t, vit-s and vit-b; this recipe's net.arch is r50

    Args:
        tables: of the recipe, not checked yet.
        default: architecture of a recipe that names none.
        own: sections of a vision transformer in recipes of this stage.

    Raises:
        ValueError: a section of another family or head is present.
    """
    net = _net_table(tables.get("net", {}))
    if net is None:
        return dict(tables)
    arch, head = net.get("arch", default), net.get("head", "bnneck")
    for name in own:
        if not is_vit(arch) and tables.get(name) is not None:
            raise ValueError(f"[{name}] is a section of vit-t, vit-s and vit-b; this recipe's net.arch is {arch}")
    if head != "jpm" and tables.get("jpm") is not None:
        raise ValueError(f"[jpm] is a section of the head jpm; this recipe's net.head is {head}")
    if not is_vit(arch):
        return dict(tables)
    sections = {name: {} if tables.get(name) is None else tables[name] for name in own}
    if head == "jpm":
        sections["jpm"] = {} if tables.get("jpm") is None else tables["jpm"]
    vit = sections["vit"]
    has_parts = isinstance(vit, Mapping) and bool(vit.get("parts"))
    return {**tables, "net": {**net, "pooling": net.get("pooling", "parts" if has_parts else "token")}, **sections}


def _net_table(net: object) -> dict[str, Any] | None:
    """The written keys of a recipe's [net]; None if it is no table."""
    if isinstance(net, Net):
        return net.model_dump(exclude_unset=True)
    return dict(net) if isinstance(net, Mapping) else None


def check_vit(net: Net, vit: VitNet | None, pixels: Pixels) -> None:
    """Refuses a trunk that cannot be built: keys of the other family, or an input without a patch.

    Raises:
        ValueError: names the key.
    """
    if vit is None:
        if net.pooling in ("token", "parts"):
            raise ValueError(f"net.pooling = '{net.pooling}' needs the tokens of a vit; net.arch is {net.arch}")
        return
    for key in RESNET_KEYS:
        info = type(net).model_fields.get(key)
        if info is not None and (found := net.model_dump()[key]) != info.default:
            raise ValueError(
                f"net.{key} = {found} is of residual networks; net.arch is {net.arch}: "
                "lupctl recipe list has recipes for it"
            )
    if net.pooling == "parts" and not vit.parts:
        raise ValueError("net.pooling = 'parts' needs part tokens: vit.parts = 3")
    if vit.stem == "ics" and (vit.patch, vit.stride) != (ICS_PATCH, ICS_PATCH):
        raise ValueError(f"vit.patch = {vit.patch}, vit.stride = {vit.stride}; the ics stem has {ICS_PATCH} and 16")
    rows, columns = count_grid(vit, pixels)
    if min(rows, columns) < 1:
        raise ValueError(
            f"pixels.height = {pixels.height}, pixels.width = {pixels.width} leave no patch of {vit.patch} pixels"
        )


def check_head(net: FinetuneNet, vit: VitNet | None, jpm: JpmSettings | None, pixels: Pixels) -> None:
    """Refuses a head that does not go with the trunk, or that needs more patches than there are.

    Raises:
        ValueError: names the key.
    """
    if net.head == "mgn":
        if vit is not None:
            raise ValueError(f"net.head = 'mgn' takes a residual trunk apart; net.arch is {net.arch}")
        if net.feature != "after":
            raise ValueError(f"net.feature = '{net.feature}' is of bnneck and jpm; net.head is mgn")
    if net.head != "jpm":
        return
    if vit is None or jpm is None:
        raise ValueError(f"net.head = 'jpm' needs the tokens of a vit; net.arch is {net.arch}")
    if net.pooling != "token" or vit.parts:
        raise ValueError("net.head = 'jpm' takes the class token: net.pooling = 'token' and vit.parts = 0")
    if vit.depth == 1:
        raise ValueError("net.head = 'jpm' repeats the last block, and needs one before it: vit.depth = 2 or more")
    rows, columns = count_grid(vit, pixels)
    needed = max(jpm.parts, jpm.shift, jpm.groups)
    if rows * columns < needed:
        raise ValueError(f"a grid of {rows} x {columns} patches is too small for [jpm], which needs {needed}")


def count_grid(vit: VitNet, pixels: Pixels) -> tuple[int, int]:
    """Rows and columns of the grid of patches; 0 or less if none fits.

    >>> count_grid(VitNet(stride=12), Pixels(height=256, width=128))
    (21, 10)
    """
    return count_patches(pixels.height, pixels.width, vit.stem, patch=vit.patch, stride=vit.stride)
