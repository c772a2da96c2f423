"""Published vision transformers: TransReID and its descendants, and the networks that their fine-tuning starts from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from pydantic import ValidationError
from torch import Tensor

from lupctl.core.choices import Pooling, Stem
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.plan import (
    HeadPlan,
    JpmHead,
    NeckHead,
    NetworkPlan,
    NoHead,
    PartsHead,
    describe_trunk,
)
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.patches import ICS_PATCH
from lupctl.core.recipes.sections import IMAGENET_MEAN, IMAGENET_STD, Pixels
from lupctl.core.training.nets.foreign.fitting import Recognised, count_blocks, count_rows
from lupctl.core.training.nets.foreign.grids import Asked, Geometry, check_asked, pick_geometry
from lupctl.core.training.nets.foreign.vit_keys import fit_vit

# Longest first; those with base are of fine-tuned networks.
PREFIXES: Final = ("module.backbone.", "module.base.", "backbone.", "base.", "module.", "")
REID: Final = "base."
# Cluster Contrast of TransReID-SSL has the neck in the trunk itself, whose keys have no prefix of their own.
BARE: Final = ("module.", "")
# The length of a head, which no tensor shows, in every published network of up to 1024 wide but one: timm's first
# "small" one, which is known by its numbers. Wider ones have heads of 72, 80, 88 and more.
HEAD_LENGTH: Final = 64
MOST_WIDE: Final = 1024
OLD_SMALL: Final = {"dim": 768, "depth": 8, "hidden": 2304, "qkv_bias": False}
OLD_SMALL_HEADS, OLD_SMALL_SCALE = 8, 768**-0.5
PARTS: Final = ("part_token1", "part_token2", "part_token3")
# TransReID's factor on side information, in all of its configurations.
SIDE_SCALE: Final = 3.0
# Of TransReID's fine-tuning and all that descends from it, whatever the weights were pre-trained with.
HALF: Final = (0.5, 0.5, 0.5)
CLUSTERS_NOTE: Final = "feature: after the neck, as trained and tested on clusters"
# What a start has besides its trunk: classifiers, DINO's projection, a second token, the token of a masked patch.
START_PARTS: Final = re.compile(r"(head|head_dist|pre_logits|fc)\..*|dist_token|masked_embed|mask_token")
BLOCK: Final = re.compile(r"blocks\.(\d+)\.")


def find_prefix(state: Mapping[str, Tensor]) -> str | None:
    """The prefix of a vision transformer's keys; None if there is none under a known prefix."""
    return next((one for one in PREFIXES if {f"{one}cls_token", f"{one}pos_embed"} <= state.keys()), None)


def recognise_vit(
    state: Mapping[str, Tensor], prefix: str, *, origin: str, asked: Asked, inside: tuple[str, ...] = ()
) -> Recognised:
    """A vision transformer in timm's keys: a fine-tuned network with its heads, or a start without.

    Args:
        state: by the keys of the file.
        prefix: of the trunk's keys.
        origin: the file, for the error.
        asked: size and stride, where the user says them.
        inside: names of the dictionaries that the state was in.

    Raises:
        FormatError: no network of this kind, or its grid is not what was asked for.
        UsageError: no network of this kind has the size or the stride that was asked for.
    """
    try:
        return _recognise_vit(state, prefix, origin=origin, asked=asked, inside=inside)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise FormatError(
            f"{origin}: tensors of no possible vision transformer: {reason}",
            hint="known networks: lupctl model convert --help",
        ) from error


def _recognise_vit(
    state: Mapping[str, Tensor], prefix: str, *, origin: str, asked: Asked, inside: tuple[str, ...]
) -> Recognised:
    on_clusters = has_own_neck(state, prefix)
    is_start = not (on_clusters or prefix.endswith(REID))
    outer = prefix.removesuffix(REID)
    state, left = drop_distillation(with_square_patches(state, prefix), prefix)
    trunk, geometry = plan_trunk(state, prefix, origin=origin, asked=asked, is_start=is_start)
    if is_start and (inside[-1:] in (("teacher",), ("student",)) or prefix.endswith("backbone.")):
        trunk = trunk.model_copy(update={"position": "dino"})
    head, lone = plan_head(state, prefix, outer)
    ignored = (*left, *lone, *(key for key in state if is_unused(key, prefix=prefix, trunk=trunk, head=head)))
    pooling: Pooling = "parts" if trunk.parts else "token"
    plan = NetworkPlan(trunk=trunk, pooling=pooling, head=head)
    own = {key: value for key, value in state.items() if key not in ignored}
    found = fit_vit(plan, own, parts=trunk.parts, prefix=prefix, outer=outer)
    return replace(
        found,
        ignored=ignored,
        prefix=prefix,
        pixels=pick_pixels(geometry, is_start=is_start, on_clusters=on_clusters),
        cameras=tuple(range(1, trunk.side_rows + 1)),
        notes=(*list_notes(trunk, geometry, asked, is_distilled=bool(left)), *([CLUSTERS_NOTE] if on_clusters else [])),
    )


def has_own_neck(state: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether a network was trained on clusters: its neck is beside the trunk's own tensors, under the same prefix."""
    return prefix in BARE and any(key.startswith(f"{prefix}bottleneck.") for key in state)


def plan_trunk(
    state: Mapping[str, Tensor], prefix: str, *, origin: str, asked: Asked, is_start: bool
) -> tuple[ViTPlan, Geometry]:
    """The trunk that shapes tell, and the grid that they leave open."""
    sizes = read_sizes(state, prefix, origin)
    stem: Stem = "ics" if f"{prefix}patch_embed.conv.0.weight" in state else "patch"
    projection = state.get(f"{prefix}patch_embed.proj.weight")
    side = count_rows(projection.transpose(0, -1)) if projection is not None and projection.dim() == 4 else 16
    patch = ICS_PATCH if stem == "ics" else side
    check_asked(asked, stem=stem, patch=patch, origin=origin)
    parts = sum(f"{prefix}{name}" in state for name in PARTS)
    positions = state[f"{prefix}pos_embed"]
    count = positions.shape[1] - (0 if parts else 1)
    geometry = pick_geometry(count, stem=stem, patch=patch, asked=asked, is_start=is_start, origin=origin)
    rows, columns = geometry.grid
    side_table = state.get(f"{prefix}sie_embed")
    is_old_small = all(OLD_SMALL[name] == getattr(sizes, name) for name in OLD_SMALL)
    trunk = ViTPlan(
        kind="vit",
        dim=sizes.dim,
        depth=sizes.depth,
        heads=OLD_SMALL_HEADS if is_old_small else sizes.dim // HEAD_LENGTH,
        hidden=sizes.hidden,
        qkv_bias=sizes.qkv_bias,
        qk_scale=OLD_SMALL_SCALE if is_old_small else None,
        stem=stem,
        patch=patch,
        stride=geometry.stride,
        rows=rows,
        columns=columns,
        position="bilinear",
        parts=parts,
        cameras=0 if side_table is None else count_rows(side_table),
        views=1,
        side_scale=SIDE_SCALE,
        unknown_camera=False,
    )
    return trunk, geometry


@dataclass(frozen=True)
class Sizes:
    """Numbers of a transformer's blocks, as in `ViTPlan`."""

    dim: int
    depth: int
    hidden: int
    qkv_bias: bool


def read_sizes(state: Mapping[str, Tensor], prefix: str, origin: str) -> Sizes:
    """Length of the tokens, number of blocks, and width of their MLP.

    Raises:
        FormatError: the length is not that of published networks, or there are no blocks.
    """
    dim = count_rows(state[f"{prefix}cls_token"].transpose(0, -1))
    depth = count_blocks(state, f"{prefix}blocks.")
    if dim % HEAD_LENGTH or dim > MOST_WIDE or not 0 < depth <= 1024:
        raise FormatError(
            f"{origin}: a vision transformer of {depth} blocks with tokens of {dim} numbers; the number of heads is "
            f"known for multiples of {HEAD_LENGTH}, a head's length, up to {MOST_WIDE}",
            hint="known networks: lupctl model convert --help",
        )
    positions = state[f"{prefix}pos_embed"]
    if positions.dim() != 3:
        shape = " x ".join(map(str, positions.shape)) or "scalar"
        raise FormatError(
            f"{origin}: {prefix}pos_embed has positions of shape {shape}; expected 1 x N x {dim}",
            hint="download it again",
        )
    first = f"{prefix}blocks.0."
    hidden = state.get(f"{first}mlp.fc1.weight")
    return Sizes(dim, depth, 4 * dim if hidden is None else count_rows(hidden), f"{first}attn.qkv.bias" in state)


def plan_head(state: Mapping[str, Tensor], prefix: str, outer: str) -> tuple[HeadPlan, tuple[str, ...]]:
    """The head of a network, and its classifiers if they do not count: one is missing, or they disagree."""
    if not prefix.endswith(REID):
        # After the neck is where training on clusters compares features; the clusters leave no classifier.
        on_clusters = has_own_neck(state, prefix)
        return NeckHead(kind="bnneck", classes=0, feature="after") if on_clusters else NoHead(kind="none"), ()
    is_jpm = any(key.startswith((f"{outer}b1.", f"{outer}b2.")) for key in state)
    necks = [key for key in state if re.fullmatch(rf"{re.escape(outer)}bottleneck_\d+\.weight", key)]
    ends = ["", *(f"_{number}" for number in range(1, len(necks) + 1))] if is_jpm else [""]
    classifiers = [f"{outer}classifier{end}.weight" for end in ends]
    there = [key for key in classifiers if key in state]
    agree = len(there) == len(classifiers) and len({state[key].shape for key in there}) == 1
    classes = count_rows(state[there[0]]) if agree else 0
    lone = () if agree else tuple(there)
    if is_jpm:
        parts = max(1, min(len(necks), 1024))
        head: HeadPlan = JpmHead(kind="jpm", classes=classes, feature="before", shift=5, groups=2, parts=parts)
    elif f"{prefix}{PARTS[0]}" in state:
        head = PartsHead(kind="parts", classes=classes, feature="before")
    else:
        head = NeckHead(kind="bnneck", classes=classes, feature="before")
    return head, lone


def is_unused(key: str, *, prefix: str, trunk: ViTPlan, head: HeadPlan) -> bool:
    """Whether published code has no use for a tensor of its files either.

    Of a fine-tuned network: the trunk's classifier, and with JPM its last block and norm, which two branches have
    copies of. Of a start: see `START_PARTS`. One that was trained on clusters has nothing of this kind.
    """
    if isinstance(head, NoHead):
        name = key.removeprefix("module.").removeprefix("backbone.")
        return START_PARTS.fullmatch(name) is not None
    name = key.removeprefix(prefix) if prefix.endswith(REID) and key.startswith(prefix) else ""
    if name in ("fc.weight", "fc.bias"):
        return True
    if not isinstance(head, JpmHead):
        return False
    number = BLOCK.match(name)
    return name in ("norm.weight", "norm.bias") or (number is not None and number[1] == str(trunk.depth - 1))


def with_square_patches(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same with the first projection as a convolution, where a file has it as a matrix of flattened patches."""
    key, found = f"{prefix}patch_embed.proj.weight", dict(state)
    weight = found.get(key)
    if weight is not None and weight.dim() == 2:
        side = round((weight.shape[1] / 3) ** 0.5)
        if 3 * side * side == weight.shape[1]:
            found[key] = weight.reshape(-1, 3, side, side)
    return found


def drop_distillation(state: dict[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same without DeiT's second token and the second row of positions, which is its own; and the token's key."""
    token, positions = f"{prefix}dist_token", f"{prefix}pos_embed"
    if token not in state or state[positions].dim() != 3:
        return state, ()
    rows = state[positions]
    kept = {key: value for key, value in state.items() if key != token}
    return {**kept, positions: torch.cat([rows[:, :1], rows[:, 2:]], dim=1)}, (token,)


def pick_pixels(geometry: Geometry, *, is_start: bool, on_clusters: bool) -> Pixels:
    """Pixels as published: fine-tuned networks are tested with halves and bilinear; no file has these constants.

    Those of clusters are tested with bicubic. Starts were trained with ImageNet's constants and bicubic; fine-tuning
    takes its recipe's own.
    """
    size = {"height": geometry.height, "width": geometry.width}
    if is_start:
        return Pixels(**size, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic")
    return Pixels(**size, mean=HALF, std=HALF, interpolation="bicubic" if on_clusters else "bilinear")


def list_notes(trunk: ViTPlan, geometry: Geometry, asked: Asked, *, is_distilled: bool) -> list[str]:
    """What was taken for what no tensor says."""
    notes = []
    if not (asked.size and (asked.stride or trunk.stem == "ics")):
        overrule = "--size" if trunk.stem == "ics" else "--size and --stride"
        notes.append(
            f"grid: {geometry.count} positions are taken for {geometry.describe()}, as published; "
            f"{overrule} of model convert can say otherwise"
        )
    if is_distilled:
        notes.append("positions: the second row is that of the distillation token; both are left out")
    if trunk.side_rows:
        notes.append(
            f"cameras: {trunk.side_rows} rows of side information, for cameras 1 to {trunk.side_rows}; "
            f"factor {SIDE_SCALE:g}, as published"
        )
    if trunk.qk_scale is not None:
        notes.append(f"{describe_trunk(trunk)}: timm's first small network; scale of the attention {trunk.dim} ** -0.5")
    return notes
