"""Tensors of one Swin for another: tables of biases for other windows, and a controller that may be left out."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.training.nets.swin.windows import resize_bias_table

TABLE: Final = ".relative_position_bias_table"
CONTROLLER: Final = ("semantic_embed_w.", "semantic_embed_b.")


def fit_swin(trunk: Mapping[str, Tensor], found: SwinPlan, wanted: SwinPlan) -> dict[str, Tensor]:
    """A trunk's tensors with tables of biases for the wanted windows, and without a controller if none is wanted.

    Args:
        trunk: by the keys of `SwinTrunk`.
        found: what they are of.
        wanted: what they are for; sizes and blocks are the same.
    """
    is_wanted = wanted.semantic_weight is not None
    kept = {key: value for key, value in trunk.items() if is_wanted or not key.startswith(CONTROLLER)}
    if found.window == wanted.window:
        return kept
    rows = (2 * found.window - 1) ** 2
    return {
        # One of another length is refused by name when it is loaded.
        key: resize_bias_table(value, side=wanted.window) if key.endswith(TABLE) and len(value) == rows else value
        for key, value in kept.items()
    }


def has_controller(trunk: Mapping[str, Tensor]) -> bool:
    """Whether a trunk's tensors have a semantic controller among them, whole or not."""
    return any(key.startswith(CONTROLLER) for key in trunk)


def say_fit(found: SwinPlan, wanted: SwinPlan) -> str:
    """What became of windows and controller, for the line about a start."""
    said = ""
    if found.window != wanted.window:
        said += f"; biases resized from windows of {found.window} to {wanted.window} tokens"
    if found.semantic_weight is not None and wanted.semantic_weight is None:
        said += "; its semantic controller not used"
    if found.semantic_weight is None and wanted.semantic_weight is not None:
        said += "; new semantic controller"
    return said
