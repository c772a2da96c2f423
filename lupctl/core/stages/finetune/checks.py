"""Starts of fine-tuning that do not fit, refused before anything is written."""

from collections.abc import Sequence
from pathlib import Path

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import CheckpointHeader, read_header
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import JpmHead, MgnHead, ResNetPlan, TrunkPlan, describe_trunk
from lupctl.core.formats.weights.swin_plan import PATCH, SWIN_SIZES, SwinPlan
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.osnet_sections import is_osnet
from lupctl.core.recipes.swin_sections import FinetuneSwin, SwinNet


def check_start(
    start: Path | None, recipe: FinetuneRecipe, cameras: Sequence[int | str] = (), *, datasets: Sequence[str] = ()
) -> None:
    """Refuses a start whose network does not fit the recipe's, before anything is written.

    Args:
        start: the checkpoint; None with imagenet and scratch.
        recipe: resolved.
        cameras: of the network's table, if it has one.
        datasets: that are trained on.

    Raises:
        UsageError: family, size, heads or cameras differ.
        FormatError: the start is no checkpoint.
    """
    if start is None:
        check_imagenet(recipe)
        check_controller(recipe.start, None, recipe.swin)
        return
    header = read_header(start)
    net, vit, swin, count = recipe.net, recipe.vit, recipe.swin, len(cameras)
    check_heads(start, header, recipe)
    wanted = plan_trunk(net, recipe.pixels, vit=vit, swin=swin, sie=recipe.sie, cameras=count, ibn=net.ibn)
    trunk = header.network.trunk
    if isinstance(trunk, ResNetPlan) and isinstance(wanted, ResNetPlan):
        if (trunk.arch, trunk.width) != (wanted.arch, wanted.width):
            raise UsageError(
                f"{start}: a trunk {trunk.arch} of width {trunk.width}; "
                f"the recipe says {net.arch} of width {net.width}",
                hint=f"--arch {trunk.arch} --set net.width={trunk.width}",
            )
    elif isinstance(trunk, ViTPlan) and isinstance(wanted, ViTPlan):
        check_transformers(start, trunk, wanted)
        if not has_other_cameras(header, datasets):
            check_table(start, header, wanted, cameras)
    elif isinstance(trunk, SwinPlan) and isinstance(wanted, SwinPlan):
        check_controller(str(start), trunk.semantic_weight, swin)
        check_swins(start, trunk, wanted)
    elif isinstance(trunk, OsnetPlan) and isinstance(wanted, OsnetPlan):
        if trunk.arch != wanted.arch:
            raise UsageError(f"{start}: {trunk.arch}; the recipe says {net.arch}", hint=f"--arch {trunk.arch}")
    else:
        raise other_family(str(start), trunk, wanted)


def other_family(start: str, found: TrunkPlan, wanted: TrunkPlan) -> UsageError:
    """The error for a start whose trunk is of another family than the recipe's."""
    kinds = {
        "resnet": "a residual network",
        "vit": "a vision transformer",
        "swin": "a Swin transformer",
        "osnet": "an OSNet",
    }
    theirs, mine = f"{kinds[found.kind]} ({describe_trunk(found)})", f"{kinds[wanted.kind]} ({wanted.arch})"
    return UsageError(
        f"{start}: {theirs}; the recipe trains {mine}",
        hint="leave out --recipe and --arch: a start has a default recipe",
    )


def check_imagenet(recipe: FinetuneRecipe) -> None:
    """Refuses networks for which torchvision has no ImageNet weights; a start from scratch is another matter.

    Raises:
        UsageError: names the key.
    """
    if recipe.start != "imagenet":
        return
    net, vit, swin = recipe.net, recipe.vit, recipe.swin
    if is_osnet(net.arch):
        raise UsageError(
            f"net.arch = {net.arch}: torchvision has no ImageNet weights of OSNets; torchreid has",
            hint=f"lupctl model download {net.arch}-imagenet --accept-terms, then --from {net.arch}-imagenet",
        )
    if swin is not None:
        check_imagenet_swin(net.arch, swin)
    if net.ibn:
        raise UsageError(
            "net.ibn = true: torchvision has ImageNet weights for plain trunks only",
            hint="--from scratch, or --set net.ibn=false",
        )
    if vit is None:
        return
    own = {"net.arch": net.arch, "vit.stem": vit.stem, "vit.patch": vit.patch, "vit.parts": vit.parts}
    theirs = {"net.arch": "vit-b", "vit.stem": "patch", "vit.patch": 16, "vit.parts": 0}
    other = next((key for key in own if own[key] != theirs[key]), "vit.depth" if vit.depth not in (0, 12) else None)
    if other is not None:
        found = own.get(other, vit.depth)
        raise UsageError(
            f"{other} = {found}: torchvision has ImageNet weights of the plain ViT-B/16 alone",
            hint="lupctl model convert FILE makes a start of a file of timm, DeiT or DINO; or --from scratch",
        )


def check_imagenet_swin(arch: str, swin: SwinNet) -> None:
    """Refuses a Swin for which torchvision has no ImageNet weights.

    Raises:
        UsageError: names the key.
    """
    published = ", ".join(name for name in SWIN_SIZES if name != "swin-u")
    wrong = f"swin.patch = {swin.patch}" if swin.patch != PATCH else ""
    wrong = f"swin.depths = {list(swin.depths)}" if swin.depths else wrong
    wrong = f"net.arch = {arch}" if arch == "swin-u" else wrong
    if wrong:
        raise UsageError(
            f"{wrong}: torchvision has ImageNet weights of {published} alone, with patches of {PATCH} pixels",
            hint="--from scratch, or --recipe solider-swin-t",
        )


def check_swins(start: Path, found: SwinPlan, wanted: SwinPlan) -> None:
    """Refuses a Swin of another size; windows may differ.

    Raises:
        UsageError: names both, and the keys to set.
    """
    if found.arch is None:
        raise UsageError(
            f"{start}: {describe_trunk(found)}, which is none of {', '.join(SWIN_SIZES)}",
            hint=f"lupctl dump {start} evaluates it; fine-tuning starts from another file",
        )
    theirs, mine = ({"swin.depths": list(plan.depths), "swin.patch": plan.patch} for plan in (found, wanted))
    if found.arch == wanted.arch and theirs == mine:
        return
    flags = [f"--arch {found.arch}"] if found.arch != wanted.arch else []
    if found.arch == wanted.arch or found.depths != SWIN_SIZES[found.arch][1]:
        flags += [f"--set '{key}={value}'" for key, value in theirs.items() if mine[key] != value]
    raise UsageError(
        f"{start}: {describe_trunk(found)}; the recipe says {describe_trunk(wanted)}", hint=" ".join(flags)
    )


def check_controller(start: str, found: float | None, swin: FinetuneSwin | None) -> None:
    """Refuses a semantic controller that would stay as it was drawn, because the start has none.

    Args:
        start: for the error.
        found: its own semantic weight; None without a controller.
        swin: of the recipe; None with another trunk.

    Raises:
        UsageError: it would.
    """
    if found is None and swin is not None and swin.semantic_weight != "none" and not swin.train_controller:
        raise UsageError(
            f"{start}: without a semantic controller; swin.semantic_weight = {swin.semantic_weight:g} needs one",
            hint="--set swin.semantic_weight=none, or --set swin.train_controller=true, which trains a new one",
        )


def check_heads(start: Path, header: CheckpointHeader, recipe: FinetuneRecipe) -> None:
    """Refuses a start that is taken apart for its heads, where the recipe has others.

    Raises:
        UsageError: names both.
    """
    head, net = header.network.head, recipe.net
    if isinstance(head, MgnHead):
        if net.head != "mgn":
            raise UsageError(
                f"{start}: an mgn of three branches; the recipe's net.head is {net.head}, which has one",
                hint="--recipe mgn-luperson, or another one whose net.head is mgn",
            )
        if (head.embedding, head.extra_bn) != (net.embedding, net.extra_bn):
            raise UsageError(
                f"{start}: an mgn with embedding {head.embedding} and extra_bn {head.extra_bn}; "
                f"the recipe says {net.embedding} and {net.extra_bn}",
                hint=f"--set net.embedding={head.embedding} --set net.extra_bn={str(head.extra_bn).lower()}",
            )
    if isinstance(head, JpmHead):
        if net.head != "jpm":
            raise UsageError(
                f"{start}: a fine-tuned network whose last block is in two copies (jpm); the recipe's net.head is "
                f"{net.head}",
                hint="--recipe transreid-vit-b-s12-sie-jpm, or another one whose net.head is jpm",
            )
        if recipe.jpm is not None and head.parts != recipe.jpm.parts:
            raise UsageError(
                f"{start}: a jpm with {head.parts} parts; the recipe says {recipe.jpm.parts}",
                hint=f"--set jpm.parts={head.parts}",
            )


def check_transformers(start: Path, found: ViTPlan, wanted: ViTPlan) -> None:
    """Refuses a vision transformer of another size or kind; its grid of positions may differ and is resized.

    Raises:
        UsageError: names both, and the keys to set.
    """
    if found.arch is None or found.qk_scale is not None:
        raise UsageError(
            f"{start}: a vision transformer with {found.dim} features, {found.heads} heads and an MLP of "
            f"{found.hidden}{'' if found.qkv_bias else ', without bias in qkv'}, which is none of vit-t, vit-s, vit-b",
            hint=f"lupctl dump {start} evaluates it; fine-tuning starts from another file",
        )
    theirs, mine = vit_keys(found), vit_keys(wanted)
    if found.arch == wanted.arch and theirs == mine:
        return
    patches = [
        f" with patches of {plan.patch} pixels" if found.patch != wanted.patch else "" for plan in (found, wanted)
    ]
    flags = [f"--arch {found.arch}"] if found.arch != wanted.arch else []
    flags += [f"--set {key}={value}" for key, value in theirs.items() if mine[key] != value]
    raise UsageError(
        f"{start}: {describe_trunk(found)}{patches[0]}; the recipe says {describe_trunk(wanted)}{patches[1]}",
        hint=" ".join(flags),
    )


def vit_keys(plan: ViTPlan) -> dict[str, str | int]:
    """What must be the same in a start and in the network that takes its weights, by recipe key."""
    return {"vit.stem": plan.stem, "vit.patch": plan.patch, "vit.parts": plan.parts, "vit.depth": plan.depth}


def has_other_cameras(header: CheckpointHeader, datasets: Sequence[str]) -> bool:
    """Whether a table of cameras is of other datasets than these: their cameras are others, whatever their numbers.

    False where it is not known what a table is of, as for converted networks, and for a network without one.
    """
    trunk = header.network.trunk
    has_table = isinstance(trunk, ViTPlan) and trunk.side_rows > 0
    return has_table and bool(datasets and header.data) and {pack.dataset for pack in header.data} != set(datasets)


def check_table(start: Path, header: CheckpointHeader, wanted: ViTPlan, cameras: Sequence[int | str]) -> None:
    """Refuses a start whose table is of other cameras of its dataset; one without a table gets a new one.

    Raises:
        UsageError: names both counts.
    """
    found = header.network.trunk
    if not isinstance(found, ViTPlan) or not found.side_rows or not wanted.side_rows:
        return
    if found.side_rows != wanted.side_rows or (header.cameras and tuple(header.cameras) != tuple(cameras)):
        mine = f"{wanted.side_rows} ({', '.join(map(str, cameras))})"
        theirs = f"{found.side_rows}" + (f" ({', '.join(map(str, header.cameras))})" if header.cameras else "")
        raise UsageError(
            f"{start}: its table is of other cameras: {theirs} there, {mine} in the training images",
            hint="--set sie.cameras=false, or start from a network without a table of cameras",
        )
