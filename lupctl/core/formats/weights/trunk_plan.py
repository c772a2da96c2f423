"""The trunk that a recipe describes."""

from typing import assert_never

from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import ResNetPlan, TrunkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.formats.weights.vit_plan import VIT_SIZES, ViTPlan, patch_grid
from lupctl.core.recipes.sections import Net, Pixels
from lupctl.core.recipes.swin_sections import SwinNet
from lupctl.core.recipes.vit_sections import SieSettings, VitNet


def plan_trunk(
    net: Net,
    pixels: Pixels,
    *,
    vit: VitNet | None,
    swin: SwinNet | None = None,
    sie: SieSettings | None = None,
    cameras: int = 0,
    ibn: bool = False,
) -> TrunkPlan:
    """The trunk of a recipe, for images of its size.

    Args:
        net: of the recipe.
        pixels: of the recipe; they fix the grid of a vision transformer's position embedding.
        vit: of the recipe; there with a vision transformer.
        swin: of the recipe; there with a Swin transformer.
        sie: of the recipe; None for no side information.
        cameras: of the training set, if there is side information.
        ibn: whether a residual trunk has IBN-a.
    """
    match net.arch:
        case "r18" | "r50" | "r101" | "r152":
            return ResNetPlan(kind="resnet", arch=net.arch, width=net.width, last_stride=net.last_stride, ibn=ibn)
        case "vit-t" | "vit-s" | "vit-b":
            assert vit is not None, "filled in by `check_arch_sections`"
            dim, depth, heads = VIT_SIZES[net.arch]
            rows, columns = patch_grid(pixels.height, pixels.width, vit.stem, patch=vit.patch, stride=vit.stride)
            has_table = sie is not None and sie.cameras and cameras > 1
            return ViTPlan(
                kind="vit",
                dim=dim,
                depth=vit.depth or depth,
                heads=heads,
                hidden=4 * dim,
                qkv_bias=True,
                qk_scale=None,
                stem=vit.stem,
                patch=vit.patch,
                stride=vit.stride,
                rows=rows,
                columns=columns,
                position=vit.position,
                parts=vit.parts,
                cameras=cameras if has_table else 0,
                views=1,
                side_scale=(sie or SieSettings()).scale,
                unknown_camera=sie is not None and has_table and sie.unknown > 0,
            )
        case "swin-u" | "swin-t" | "swin-s" | "swin-b":
            assert swin is not None, "filled in by `check_swin_section`"
            return plan_swin(
                net.arch,
                depths=swin.depths,
                patch=swin.patch,
                window=swin.window,
                semantic_weight=None if swin.semantic_weight == "none" else swin.semantic_weight,
            )
        case (
            "osnet-x1.0"
            | "osnet-x0.75"
            | "osnet-x0.5"
            | "osnet-x0.25"
            | "osnet-ibn-x1.0"
            | "osnet-ain-x1.0"
            | "osnet-ain-x0.75"
            | "osnet-ain-x0.5"
            | "osnet-ain-x0.25"
        ):
            return OsnetPlan(kind="osnet", arch=net.arch)
        case _:
            assert_never(net.arch)
