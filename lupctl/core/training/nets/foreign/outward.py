"""Our trunks by the names that other programs have for them, or why they have none.

| names | of | read by |
|---|---|---|
| torchvision | a residual trunk | torchvision's ResNet, timm's of the same name, DINO's and MoCo's code |
| timm | a vision transformer of plain patches | timm's `VisionTransformer`, strictly |
| dino | the same, and with the stem of convolutions | fine-tuning after DINO and TransReID-SSL: a bare backbone |
| solider | a Swin transformer | SOLIDER's pre-training and fine-tuning: a teacher without its head |
| torchreid | an OSNet, with its layer `fc` if it has one | torchreid, and boxmot, by name and shape |
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from lupctl.core.choices import OutwardNames
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.osnet_plan import OSNET_SIZES, OsnetPlan
from lupctl.core.formats.weights.plan import JpmHead, MgnHead, NetworkPlan, ResNetPlan, TrunkPlan, describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.foreign.osnet import torchreid_key
from lupctl.core.training.nets.swin.windows import position_index

TRUNK: Final = "backbone."
# What of an OSNet is written: the layer of its features, too.
OSNET_PARTS: Final = (TRUNK, "head.fc.")
TRANSFORMER_NAMES: Final[tuple[OutwardNames, ...]] = ("timm", "dino")


def outward_trunk(
    plan: NetworkPlan, tensors: Mapping[str, Tensor], names: OutwardNames, *, origin: str
) -> dict[str, Tensor]:
    """A trunk's tensors by foreign names, without pooling and head.

    Args:
        plan: of the network.
        tensors: of the network, by our keys.
        names: whose.
        origin: the file, for the error.

    Raises:
        FormatError: the trunk has no such names; says what can be done.
    """
    if isinstance(plan.trunk, OsnetPlan) or names == "torchreid":
        return published_osnet(check_osnet(plan.trunk, names, origin), tensors)
    if isinstance(plan.trunk, SwinPlan) or names == "solider":
        check_swin(plan.trunk, names, origin)
    elif isinstance(plan.trunk, ResNetPlan):
        check_residual(plan, plan.trunk, origin)
    else:
        check_transformer(plan, plan.trunk, names, origin)
    own = {
        key.removeprefix(TRUNK): value.contiguous() for key, value in sorted(tensors.items()) if key.startswith(TRUNK)
    }
    return published_teacher(plan.trunk, own) if isinstance(plan.trunk, SwinPlan) else own


def check_swin(trunk: TrunkPlan, names: OutwardNames, origin: str) -> None:
    """Refuses a Swin under other names than SOLIDER's, and other trunks under these.

    Raises:
        FormatError: it is one of them.
    """
    what = describe_trunk(trunk)
    if not isinstance(trunk, SwinPlan):
        raise FormatError(
            f"{origin}: {what} is not a Swin transformer; the solider names are for those",
            hint="--to torchvision" if isinstance(trunk, ResNetPlan) else "--to timm",
        )
    if names != "solider":
        raise FormatError(
            f"{origin}: {what} pads and merges as SOLIDER's code does; under {names} names it would be another network",
            hint="--to solider",
        )


def check_osnet(trunk: TrunkPlan, names: OutwardNames, origin: str) -> OsnetPlan:
    """An OSNet under torchreid's names; refuses it under others, and other trunks under these.

    Raises:
        FormatError: it is one of them.
    """
    if not isinstance(trunk, OsnetPlan):
        meant = {"resnet": "torchvision", "vit": "timm", "swin": "solider"}[trunk.kind]
        raise FormatError(
            f"{origin}: {describe_trunk(trunk)} is not an OSNet; the torchreid names are for those",
            hint=f"--to {meant}",
        )
    if names != "torchreid":
        raise FormatError(f"{origin}: {describe_trunk(trunk)} has names of torchreid's alone", hint="--to torchreid")
    return trunk


def published_osnet(trunk: OsnetPlan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An OSNet as torchreid's files have it, without a classifier."""
    kind = OSNET_SIZES[trunk.arch].kind
    own = {key: value for key, value in sorted(tensors.items()) if key.startswith(OSNET_PARTS)}
    return {torchreid_key(key, kind): value.contiguous() for key, value in own.items()}


def published_teacher(trunk: SwinPlan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Swin as SOLIDER's files have it: under `backbone.`, with tensors that its code has and no feature depends on.

    Those are norms of the first three maps, fresh, the controller after the last stage, of zeros, and indices.

    Args:
        trunk: what the tensors are of.
        tensors: by our keys.
    """
    index, found = position_index(trunk.window), dict(tensors)
    for key in tensors:
        if key.endswith(".relative_position_bias_table"):
            found[key.replace("bias_table", "index")] = index.clone()
    for number, dim in enumerate(trunk.dims[:3]):
        found |= {f"norm{number}.weight": torch.ones(dim), f"norm{number}.bias": torch.zeros(dim)}
    for kind in "wb" if trunk.semantic_weight is not None else "":
        found[f"semantic_embed_{kind}.3.weight"] = torch.zeros(trunk.dims[3], 2)
        found[f"semantic_embed_{kind}.3.bias"] = torch.zeros(trunk.dims[3])
    return {f"{TRUNK}{key}": found[key] for key in sorted(found)}


def check_residual(plan: NetworkPlan, trunk: ResNetPlan, origin: str) -> None:
    """Refuses a residual trunk that is not torchvision's; timm and DINO have the same names for that one.

    Raises:
        FormatError: its last stages are in MGN's branches, or it has IBN.
    """
    if isinstance(plan.head, MgnHead):
        raise FormatError(
            f"{origin}: a network with head mgn whose trunk is not a plain ResNet; torchvision has no names for it",
            hint="name a checkpoint of lupctl pretrain, or of finetune without mgn",
        )
    if trunk.ibn:
        raise FormatError(
            f"{origin}: {describe_trunk(trunk)} has IBN, for which torchvision and timm have no names",
            hint="lupctl model export FILE writes the whole network as ONNX",
        )


def check_transformer(plan: NetworkPlan, trunk: ViTPlan, names: OutwardNames, origin: str) -> None:
    """Refuses a vision transformer that the readers of some names would not load, or would take for another.

    Raises:
        FormatError: it has parts that they do not know, or another grid than they take it for.
    """
    what = describe_trunk(trunk)
    onnx = "lupctl model export FILE writes the whole network as ONNX"
    if names not in TRANSFORMER_NAMES:
        raise FormatError(
            f"{origin}: {what} is not a plain ResNet; the torchvision names are for those", hint="--to timm"
        )
    if isinstance(plan.head, JpmHead):
        raise FormatError(
            f"{origin}: a network with head jpm, whose last block is there twice and not in its trunk",
            hint=f"name the run that it started from; or {onnx}",
        )
    reader = "timm's VisionTransformer" if names == "timm" else "DINO's vision transformer"
    problems = {
        f"{trunk.parts} part tokens": trunk.parts > 0,
        f"side information of {trunk.side_rows} cameras": trunk.side_rows > 0,
        f"patches of {trunk.patch} pixels at stride {trunk.stride}": trunk.stride != trunk.patch,
        f"a scale of {trunk.qk_scale} in its attention": trunk.qk_scale is not None,
    }
    unknown = [problem for problem, is_there in problems.items() if is_there]
    if unknown:
        raise FormatError(f"{origin}: {what} has {' and '.join(unknown)}, which {reader} cannot have", hint=onnx)
    if trunk.stem == "ics" and names == "timm":
        raise FormatError(
            f"{origin}: {what} has the stem of convolutions (ICS), which {reader} cannot have",
            hint="--to dino writes the names that TransReID-SSL's fine-tuning reads",
        )
    if names == "dino" and trunk.rows not in (trunk.columns, 2 * trunk.columns):
        raise FormatError(
            f"{origin}: positions of {trunk.rows} x {trunk.columns}; those who read DINO's names take any grid for a "
            "square one or, in TransReID-SSL, for one twice as high as wide",
            hint="--to timm" if trunk.stem == "patch" else "pre-train at --set pixels.height=256",
        )


def timm_call(trunk: ViTPlan, *, height: int, width: int) -> str | None:
    """The line of Python that makes timm's network for a trunk; None where its positions are of other images.

    Args:
        trunk: that timm can have.
        height, width: of the images.
    """
    if trunk.grid(height, width) != (trunk.rows, trunk.columns):
        return None
    ratio = trunk.hidden / trunk.dim
    more = f", mlp_ratio={ratio:g}" if ratio != 4 else ""
    more += "" if trunk.qkv_bias else ", qkv_bias=False"
    return (
        f"timm.models.VisionTransformer(img_size=({height}, {width}), patch_size={trunk.patch}, num_classes=0, "
        f"embed_dim={trunk.dim}, depth={trunk.depth}, num_heads={trunk.heads}{more})"
    )
