"""The header of a network of which something is set: its weights are the same."""

from lupctl.core.choices import Interpolation, PositionResize
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import JpmHead, MgnHead
from lupctl.core.formats.weights.settings import EXAMPLES, Settings
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.models import MGN_HEIGHT_STEP
from lupctl.core.recipes.osnet_sections import takes_images
from lupctl.core.recipes.patches import count_patches


def apply_settings(
    header: CheckpointHeader, settings: Settings, *, origin: str, option: str = "--set"
) -> CheckpointHeader:
    """The header of the network that the settings make of another one; its weights are the same.

    Args:
        header: of the network as it was trained.
        settings: what is set of it.
        origin: the checkpoint, for errors.
        option: after which they were typed.

    Raises:
        UsageError: the network has no such key, or cannot take images of that size.
    """
    changed, described = header, describe_network(header)
    if settings.size is not None:
        changed = _resized(changed, settings.size, origin=origin, option=option)
    if settings.semantic_weight is not None:
        trunk = changed.network.trunk
        if not isinstance(trunk, SwinPlan) or trunk.semantic_weight is None:
            raise UsageError(
                f"{origin}: {described} has no semantic controller, and so semantic_weight cannot be set; "
                "networks of SOLIDER have one",
                hint=_without(option),
            )
        trunk = trunk.model_copy(update={"semantic_weight": settings.semantic_weight})
        changed = changed.model_copy(update={"network": changed.network.model_copy(update={"trunk": trunk})})
    if settings.interpolation is not None:
        changed = _filtered(changed, settings.interpolation)
    if settings.position is None:
        return changed
    is_resized = settings.size is not None
    return _repositioned(changed, settings.position, is_resized=is_resized, origin=origin, option=option)


def _resized(header: CheckpointHeader, size: tuple[int, int], *, origin: str, option: str) -> CheckpointHeader:
    (height, width), trunk, head = size, header.network.trunk, header.network.head
    own = header.preprocessing
    if size == (own.height, own.width):
        return header
    refused, hint = f"{origin}: {describe_network(header)} takes no images of {height} x {width}: ", f"{option} size="
    if isinstance(trunk, ViTPlan):
        rows, columns = count_patches(height, width, trunk.stem, patch=trunk.patch, stride=trunk.stride)
        if min(rows, columns) < 1:
            raise UsageError(
                f"{refused}no patch of {trunk.patch} x {trunk.patch} pixels fits",
                hint=f"{hint}{own.height}x{own.width}",
            )
        if isinstance(head, JpmHead) and rows * columns < head.parts:
            raise UsageError(
                f"{refused}they have {rows * columns} patches, fewer than its {head.parts} parts",
                hint=f"{hint}{own.height}x{own.width}",
            )
    if isinstance(trunk, SwinPlan) and min(height, width) < trunk.patch * trunk.window:
        least = trunk.patch * trunk.window
        raise UsageError(
            f"{refused}one window of its attention shows {least} x {least} pixels, the least that they may have",
            hint=f"{hint}{max(height, least)}x{max(width, least)}",
        )
    if isinstance(trunk, OsnetPlan) and not takes_images(trunk.arch, height, width):
        raise UsageError(
            f"{refused}a cell of its last map shows 16 x 16 pixels, and too few are left",
            hint=f"{hint}{own.height}x{own.width}",
        )
    if isinstance(head, MgnHead) and height % MGN_HEIGHT_STEP:
        fitting = max(MGN_HEIGHT_STEP, round(height / MGN_HEIGHT_STEP) * MGN_HEIGHT_STEP)
        raise UsageError(
            f"{refused}an mgn cuts maps into halves and thirds, and its heights are multiples of {MGN_HEIGHT_STEP}",
            hint=f"{hint}{fitting}x{width}",
        )
    return header.model_copy(update={"preprocessing": own.model_copy(update={"height": height, "width": width})})


def _filtered(header: CheckpointHeader, filter_: Interpolation) -> CheckpointHeader:
    pixels = header.preprocessing.model_copy(update={"interpolation": filter_})
    return header.model_copy(update={"preprocessing": pixels})


def _repositioned(
    header: CheckpointHeader, how: PositionResize, *, is_resized: bool, origin: str, option: str
) -> CheckpointHeader:
    trunk, pixels = header.network.trunk, header.preprocessing
    if not isinstance(trunk, ViTPlan):
        raise UsageError(
            f"{origin}: {describe_network(header)} has no position embedding to resize; vision transformers have one",
            hint=_without(option),
        )
    if not is_resized and trunk.grid(pixels.height, pixels.width) == (trunk.rows, trunk.columns):
        raise UsageError(
            f"{origin}: its positions are those of images of {pixels.height} x {pixels.width} and are not resized, so "
            f"position={how} would change nothing",
            hint=f"set another size, too: --set size={2 * pixels.height}x{2 * pixels.width}",
        )
    trunk = trunk.model_copy(update={"position": how})
    return header.model_copy(update={"network": header.network.model_copy(update={"trunk": trunk})})


def _without(option: str) -> str:
    """What to type where a network has no such key: every one can be given images of another size."""
    return "leave --set out" if option == "--set" else f"{option} size=256x128,{EXAMPLES['size']}"
