"""The recipe, the start and the folder that a short fine-tuning command means."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupctl.core.choices import TRAINING_SEED, Arch, ReidHead
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import FINETUNED, Start, find_start, newest_start
from lupctl.core.resolve.training.batch import take_batch
from lupctl.core.resolve.training.folders import choose_run
from lupctl.core.resolve.training.labels import DEFAULT_RECIPE, cluster_recipe, family_recipe, wanted_labels
from lupctl.core.resolve.training.schedule import say_lengths
from lupctl.core.resolve.training.swins import network_facts as swin_facts
from lupctl.core.resolve.training.teachers import name_of
from lupctl.core.resolve.training.transformers import family, first_recipe, transformer_recipe
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.stages.finetune.job import FinetuneJob


# An MGN's pixel constants and extra batch norm depend on what it starts from.
IMAGENET_RECIPE = "mgn-imagenet"


NL_RECIPE = "mgn-luperson-nl"


def resolve(
    space: Workspace,
    recipe: str | None,
    flags: dict[str, Any],
    overrides: list[str],
    progress: Progress,
    *,
    packs: Sequence[Path],
) -> tuple[Start, "FinetuneRecipe"]:
    """The start, and the recipe with what the start decides filled in.

    A checkpoint decides the pixel constants, unless the text of a recipe that was named sets them. It also decides the
    depth and width of the trunk and, for an mgn, its heads, which only `--set` and named flags override. A start that
    nobody named is a run that fits: one of a transformer with other patches, another stem or other blocks than a recipe
    that was named is passed over.

    Args:
        space: the workspace.
        recipe: shipped name or TOML file; None where none was named.
        flags: of named options, by recipe key.
        overrides: `--set` entries.
        progress: reports what was chosen.
        packs: that it is trained on; a start that was fine-tuned elsewhere was on none of these.
    """
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.recipes.vit_sections import typed_arch

    for entry in overrides:
        key, _, value = entry.partition("=")
        if key.strip() == "data.batch":
            raise UsageError(
                "data.batch: a batch of fine-tuning is data.persons persons with data.images images each",
                hint=f"--batch {value.strip() if value.strip().isdigit() else 64}",
            )
    # The recipe says which start is wanted, and the start then decides the rest of the recipe.
    first = recipe or first_recipe(space, flags, overrides)
    if recipe is None and wanted_labels(None, flags.get("labels"), overrides) == "clusters":
        first = family_recipe(first)
    asked = _resolve(first or DEFAULT_RECIPE, flags, overrides)
    order = Order(recipe, flags, overrides, asked)
    if asked.start not in ("", FINETUNED):
        origin = find_start(space, asked.start)
    else:
        origin = newest_start(
            space,
            asked.net.arch,
            lambda start: misfit(order, start),
            progress,
            name=typed_arch(asked.net.arch, asked.vit),
            besides=[open_pack(path).dataset for path in packs] if asked.start == FINETUNED else None,
        )
    name, final = complete(order, origin, progress)
    say_lengths(final, resolve_recipe("finetune", name), progress)
    return origin, final


@dataclass(frozen=True)
class Order:
    """What was asked for on a command line.

    Args:
        recipe: its name, if one was named.
        flags: of named options, by recipe key.
        overrides: `--set` entries.
        asked: the recipe as far as it is known without a start.
    """

    recipe: str | None
    flags: dict[str, Any]
    overrides: list[str]
    asked: "FinetuneRecipe"


def complete(order: Order, origin: Start, progress: Progress) -> tuple[str, "FinetuneRecipe"]:
    """The name of the recipe, and the recipe with what a start decides filled in."""
    asked, recipe = order.asked, order.recipe
    # A start of another family decides nothing; the stage refuses it.
    fits = origin.header is None or origin.header.network.trunk.kind == family(asked.net.arch)
    facts = network_facts(origin, asked.net.head) if fits else {}
    if fits and asked.swin is not None:
        facts = swin_facts(origin, asked.swin, progress)
    if recipe is None and asked.labels == "clusters":
        recipe = cluster_recipe(origin, asked.net.arch, progress)
        facts |= patch_facts(origin) if fits else {}
    elif recipe is None:
        recipe, constants = default_recipe(origin, asked.net.arch, progress)
        facts |= constants | (patch_facts(origin) if fits else {})
    flags = {**order.flags, "start": origin.name}
    return recipe, _resolve(recipe, flags, order.overrides, facts=facts, adopted=pixel_constants(origin))


def _resolve(
    recipe: str,
    flags: dict[str, Any],
    overrides: list[str],
    *,
    facts: dict[str, Any] | None = None,
    adopted: dict[str, Any] | None = None,
) -> "FinetuneRecipe":
    """A recipe of fine-tuning with everything filled in; see `resolve_recipe`."""
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    flags = take_batch("finetune", recipe, overrides, flags)
    found = resolve_recipe("finetune", recipe, overrides=overrides, flags=flags, facts=facts, adopted=adopted)
    assert isinstance(found, FinetuneRecipe)
    return found


def misfit(order: Order, origin: Start) -> str | None:
    """Why a run is no start for what was asked for, although nobody named another one; None if it is one."""
    from lupctl.core.formats.weights.plan import describe_trunk
    from lupctl.core.formats.weights.swin_plan import SwinPlan
    from lupctl.core.formats.weights.trunk_plan import plan_trunk
    from lupctl.core.formats.weights.vit_plan import ViTPlan
    from lupctl.core.stages.finetune.checks import check_start

    assert origin.checkpoint is not None
    assert origin.header is not None
    try:
        _, final = complete(order, origin, Progress(quiet=True))
        check_start(origin.checkpoint, final)
    except UsageError as error:
        return error.message.removeprefix(f"{origin.checkpoint}: ")
    asked, found = order.asked, origin.header.network.trunk
    wanted = plan_trunk(asked.net, asked.pixels, vit=asked.vit, swin=asked.swin, ibn=asked.net.ibn)
    match found, wanted:
        case ViTPlan(), ViTPlan():
            fits = found.depth == wanted.depth
        case SwinPlan(), SwinPlan():
            fits = (found.depths, found.patch) == (wanted.depths, wanted.patch)
        case _:
            fits = True
    return (
        None if fits or order.recipe is None else f"{describe_trunk(found)}; the recipe says {describe_trunk(wanted)}"
    )


def settle(job: "FinetuneJob", *, is_named: bool, progress: Progress) -> "FinetuneJob":
    """The job in the folder that it continues or begins, unless its folder was named."""
    from lupctl.core.stages.finetune.job import describe_setup

    if is_named:
        return job
    return replace(job, run=choose_run(job.run, lambda: describe_setup(job), force=job.force, progress=progress))


def network_facts(origin: Start, head: ReidHead) -> dict[str, Any]:
    """The network settings that a start decides, by recipe key: its trunk, and its heads if `head` is of their kind."""
    from lupctl.core.formats.weights.osnet_plan import OsnetPlan
    from lupctl.core.formats.weights.plan import JpmHead, MgnHead, ResNetPlan
    from lupctl.core.formats.weights.swin_plan import SwinPlan
    from lupctl.core.formats.weights.vit_plan import VIT_SIZES

    if origin.header is None or isinstance(origin.header.network.trunk, SwinPlan):
        return {}
    trunk, own = origin.header.network.trunk, origin.header.network.head
    if isinstance(trunk, OsnetPlan):
        return {"net.arch": trunk.arch}
    if isinstance(trunk, ResNetPlan):
        facts: dict[str, Any] = {"net.arch": trunk.arch, "net.width": trunk.width}
    elif trunk.arch is None:  # refused by the stage
        return {}
    else:
        depth = 0 if trunk.depth == VIT_SIZES[trunk.arch][1] else trunk.depth
        facts = {"net.arch": trunk.arch, "vit.depth": depth}
    if isinstance(own, MgnHead) and head == "mgn":
        facts |= {"net.embedding": own.embedding, "net.extra_bn": own.extra_bn}
    if isinstance(own, JpmHead) and head == "jpm":
        facts |= {"jpm.shift": own.shift, "jpm.groups": own.groups, "jpm.parts": own.parts}
    return facts


def patch_facts(origin: Start) -> dict[str, Any]:
    """How a vision transformer to start from cuts patches and which tokens it has, for a recipe that nobody named."""
    from lupctl.core.formats.weights.vit_plan import ViTPlan

    trunk = None if origin.header is None else origin.header.network.trunk
    if not isinstance(trunk, ViTPlan):
        return {}
    return {
        "vit.stem": trunk.stem,
        "vit.patch": trunk.patch,
        "vit.stride": trunk.stride,
        "vit.parts": trunk.parts,
    }


def pixel_constants(origin: Start) -> dict[str, Any]:
    """The pixel constants of a start, by recipe key."""
    if origin.header is None:
        return {}
    pixels = origin.header.preprocessing
    return {"pixels.mean": pixels.mean, "pixels.std": pixels.std}


def default_recipe(origin: Start, arch: Arch, progress: Progress) -> tuple[str, dict[str, Any]]:
    """The recipe for a start when none is named, and the start's pixel constants where the recipe's are wrong.

    Constants of a start that are neither LUPerson's nor LUPerson-NL's are its own, and are kept. The published runs
    from momentum contrast on ImageNet keep them too, and have the extra batch norm. Recipes of vision transformers have
    the same constants for every start, as published.
    """
    from lupctl.core.recipes.sections import LUPERSON_MEAN, LUPERSON_NL_MEAN

    if family(arch) != "resnet":
        recipe = transformer_recipe(arch, origin.header)
        small = "" if recipe == "small-swin" else f"; --recipe small-{family(arch)} is for a CPU"
        progress.say(f"recipe: {recipe} (the default for this start{small})")
        return recipe, {}
    recipe, constants, why = DEFAULT_RECIPE, dict[str, Any](), ""
    if origin.header is None:
        if origin.name == "imagenet":
            recipe = f"{IMAGENET_RECIPE}-r101" if arch == "r101" else IMAGENET_RECIPE
    elif origin.header.preprocessing.mean == LUPERSON_NL_MEAN:
        recipe = NL_RECIPE
    elif origin.header.preprocessing.mean != LUPERSON_MEAN:
        constants, why = pixel_constants(origin), ", with the start's pixel constants"
    progress.say(f"recipe: {recipe} (the default for this start{why}; --recipe bot is lighter)")
    return recipe, constants


def default_run(space: Workspace, packs: tuple[Path, ...], recipe: "FinetuneRecipe", origin: Start) -> Path:
    """The default folder of a run: the same command finds it again, one with another subset or seed does not."""
    from lupctl.core.recipes.vit_sections import typed_arch

    start_name = Path(origin.name).stem if origin.checkpoint is not None else origin.name
    if start_name == "checkpoint" and origin.checkpoint is not None:
        start_name = origin.checkpoint.resolve().parent.name
    parts = [
        "finetune",
        "+".join(pack.stem for pack in packs),
        typed_arch(recipe.net.arch, recipe.vit),
        "from",
        start_name,
    ]
    data = recipe.data
    if recipe.labels == "clusters":
        parts.insert(2, "clusters")
    if data.subset:
        parts.append(Path(data.subset.replace(":", "-")).name.removesuffix(".txt"))
    if recipe.distil is not None:
        parts += ["taught-by", name_of(recipe.distil.teacher)]
    if data.subset_seed:
        parts.append(f"part{data.subset_seed}")
    if data.repeat != 1:
        parts.append(f"repeat-{data.repeat:g}" if isinstance(data.repeat, float) else f"repeat-{data.repeat}")
    if recipe.seed != TRAINING_SEED:  # a run of another seed has it in its name
        parts.append(f"seed{recipe.seed}")
    return space.runs / "-".join(parts)
