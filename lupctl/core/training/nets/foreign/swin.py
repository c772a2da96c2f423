"""Published Swin transformers: SOLIDER's teachers and fine-tuned networks, and those of ImageNet."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError
from torch import Tensor

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.plan import HeadPlan, NeckHead, NetworkPlan, NoHead
from lupctl.core.formats.weights.swin_plan import SWIN_SIZES, SwinPlan, describe_swin
from lupctl.core.recipes.sections import IMAGENET_MEAN, IMAGENET_STD, Pixels
from lupctl.core.recipes.swin_sections import TUNED_WEIGHT
from lupctl.core.training.nets.foreign.fitting import COUNTER, Difference, Recognised, count_blocks, count_rows
from lupctl.core.training.nets.foreign.swin_keys import Dialect, find_dialect, key_in, reorder_merging
from lupctl.core.training.nets.meta import build_empty
from lupctl.core.training.nets.swin.windows import position_index

# Longest first; those with base are of fine-tuned networks.
PREFIXES: Final = ("module.backbone.", "module.base.", "backbone.", "base.", "module.", "")
REID: Final = "base."
HALF: Final = (0.5, 0.5, 0.5)
INDEX: Final = "relative_position_index"
# What a trunk has and no feature depends on: norms of the first three maps, the controller after the last stage, which
# the last map does not pass, and masks for one size of images.
DEAD: Final = re.compile(r"norm[012]\.(weight|bias)|semantic_embed_[wb]\.3\.(weight|bias)|.*\.attn_mask")
# What a start has besides its trunk: DINO's projection, or a classifier.
START_HEAD: Final = re.compile(r"(module\.)?head\..*")
HEAD_KEYS: Final = {"head.neck.": "bottleneck.", "head.classifier.": "classifier."}


def find_swin(state: Mapping[str, Tensor]) -> tuple[str, Dialect] | None:
    """The prefix of a Swin's keys and their dialect; None if there is none under a known prefix."""
    found = ((prefix, find_dialect(state, prefix)) for prefix in PREFIXES)
    return next(((prefix, dialect) for prefix, dialect in found if dialect is not None), None)


def recognise_swin(state: Mapping[str, Tensor], prefix: str, dialect: Dialect, *, origin: str) -> Recognised:
    """A Swin: a fine-tuned network with its head, or a start without.

    Args:
        state: by the keys of the file.
        prefix: of the trunk's keys.
        dialect: of the trunk's keys.
        origin: the file, for the error.

    Raises:
        FormatError: no network of this kind.
    """
    is_start = not prefix.endswith(REID)
    outer = prefix.removesuffix(REID)
    try:
        trunk = plan_trunk(state, prefix, dialect, is_start=is_start)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg'].lower()}" if field else first["msg"].removeprefix("Value error, ")
        raise FormatError(
            f"{origin}: tensors of no possible Swin transformer: {reason}",
            hint="known networks: lupctl model convert --help",
        ) from error
    head: HeadPlan = NoHead(kind="none")
    if not is_start:
        classifier = state.get(f"{outer}classifier.weight")
        head = NeckHead(kind="bnneck", classes=0 if classifier is None else count_rows(classifier), feature="before")
    ignored = tuple(key for key in state if is_unused(key, prefix, is_start=is_start))
    check_indices(state, trunk, origin)
    plan = NetworkPlan(trunk=trunk, pooling="avg", head=head)
    own = {key: value for key, value in state.items() if key not in ignored}
    found = fit_keys(plan, own, prefix=prefix, outer=outer, dialect=dialect)
    notes = list_notes(trunk, dialect, is_start=is_start)
    pixels = pick_pixels(dialect, is_start=is_start)
    return replace(found, ignored=ignored, prefix=prefix, pixels=pixels, notes=notes)


def plan_trunk(state: Mapping[str, Tensor], prefix: str, dialect: Dialect, *, is_start: bool) -> SwinPlan:
    """The trunk that shapes tell: of a published size if its first stage is as wide as one, else as it is.

    Raises:
        ValidationError: there is no such network.
    """

    def find(key: str) -> Tensor | None:
        return state.get(f"{prefix}{key_in(dialect, key)}")

    patches = find("patch_embed.projection.weight")
    assert patches is not None, "found by `find_dialect`"
    dim, patch = count_rows(patches), count_rows(patches.transpose(0, -1)) if patches.dim() == 4 else 1
    tables = [find(f"stages.{stage}.blocks.0.attn.w_msa.relative_position_bias_table") for stage in range(4)]
    sides = [math.isqrt(len(table)) for table in tables if table is not None and table.dim() == 2]
    blocks = (key_in(dialect, f"stages.{stage}.blocks.0.x").removesuffix("0.x") for stage in range(4))
    depths = tuple(count_blocks(state, f"{prefix}{one}") for one in blocks)
    heads = tuple(1 if table is None or table.dim() != 2 else count_rows(table.T) for table in tables)
    alike = [sizes for sizes in SWIN_SIZES.values() if sizes[0] == dim]
    if alike:
        _, depths, heads = min(alike, key=lambda one: sum(abs(a - b) for a, b in zip(one[1], depths, strict=True)))
    has_controller = any(key.startswith(f"{prefix}semantic_embed_") for key in state)
    weight = (0.0 if is_start else TUNED_WEIGHT) if has_controller else None
    window = (max(sides, default=0) + 1) // 2
    fields = {"dim": dim, "depths": depths, "heads": heads, "patch": patch, "window": window, "semantic_weight": weight}
    return SwinPlan.model_validate({"kind": "swin", **fields})


def is_unused(key: str, prefix: str, *, is_start: bool) -> bool:
    """Whether a network has no use for a tensor of a published file."""
    name = key.removeprefix(prefix) if key.startswith(prefix) else ""
    if DEAD.fullmatch(name) or name.endswith(f".{INDEX}"):
        return True
    return is_start and START_HEAD.fullmatch(key) is not None


def check_indices(state: Mapping[str, Tensor], trunk: SwinPlan, origin: str) -> None:
    """Fails if a stored index into a table of biases is not the one that is computed here.

    Raises:
        FormatError: it is another one.
    """
    wanted = position_index(trunk.window).flatten()
    for key, value in state.items():
        if key.endswith(f".{INDEX}") and not (
            value.shape.numel() == len(wanted) and bool((value.flatten() == wanted).all())
        ):
            raise FormatError(
                f"{origin}: {key} is not the index of windows of {trunk.window} x {trunk.window} tokens",
                hint="download it again",
            )


def fit_keys(plan: NetworkPlan, own: Mapping[str, Tensor], *, prefix: str, outer: str, dialect: Dialect) -> Recognised:
    """Compares the tensors of a file with those of a network by the file's keys; an absent counter becomes 0.

    Args:
        plan: the network.
        own: tensors by the keys of the file, without those that have no use.
        prefix: of the file's trunk.
        outer: of its head.
        dialect: of its trunk.
    """
    tensors, differences, missing, used = dict[str, Tensor](), list[Difference](), list[str](), set[str]()
    for key, value in build_empty(plan).state_dict().items():
        name = published_key(key, prefix=prefix, outer=outer, dialect=dialect)
        found, shape = own.get(name), tuple(value.shape)
        used.add(name)
        if found is None and key.endswith(COUNTER):
            missing.append(name)
            tensors[key] = value.new_zeros((), device="cpu")
        elif found is None or tuple(found.shape) != shape:
            differences.append(Difference(name, None if found is None else tuple(found.shape), shape))
        else:
            ours = key.removeprefix("backbone.")
            tensors[key] = found if dialect == "solider" else reorder_merging(ours, found)
    differences += [Difference(key, tuple(value.shape), None) for key, value in own.items() if key not in used]
    return Recognised(plan, tensors, len(own), (), tuple(missing), differences=tuple(differences))


def published_key(key: str, *, prefix: str, outer: str, dialect: Dialect) -> str:
    """The key that one of our network's has in a file.

    >>> published_key("backbone.norm3.bias", prefix="base.", outer="", dialect="solider")
    'base.norm3.bias'
    >>> published_key("head.neck.weight", prefix="module.base.", outer="module.", dialect="solider")
    'module.bottleneck.weight'
    """
    for ours, theirs in HEAD_KEYS.items():
        if key.startswith(ours):
            return f"{outer}{theirs}{key.removeprefix(ours)}"
    return f"{prefix}{key_in(dialect, key.removeprefix('backbone.'))}"


def pick_pixels(dialect: Dialect, *, is_start: bool) -> Pixels:
    """Pixels as published: no file has them; a start's are those of its pre-training, and fine-tuning takes its own."""
    if not is_start:
        return Pixels(height=384, width=128, mean=HALF, std=HALF, interpolation="bilinear")
    height, width = (256, 128) if dialect == "solider" else (224, 224)
    return Pixels(height=height, width=width, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic")


def list_notes(trunk: SwinPlan, dialect: Dialect, *, is_start: bool) -> tuple[str, ...]:
    """What was taken for what no tensor says."""
    notes = []
    if trunk.semantic_weight is not None and not is_start:
        notes.append(f"semantic weight: {trunk.semantic_weight:g} for every image, as published")
    if dialect != "solider":
        notes.append(f"{describe_swin(trunk)}: keys as {dialect} writes them; neighbours are merged in SOLIDER's order")
    return tuple(notes)
