"""What a short fine-tuning command means: its recipe, its start and its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupctl.core.choices import TRAINING_SEED, Arch, ReidHead
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import Start, find_start
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import FinetuneRecipe


DEFAULT_RECIPE = "mgn-luperson"


# What an MGN's pixel constants and extra batch norm are depends on what it starts from.
IMAGENET_RECIPE = "mgn-imagenet"


NL_RECIPE = "mgn-luperson-nl"


def resolve(
    space: Workspace, recipe: str | None, flags: dict[str, Any], overrides: list[str], progress: Progress
) -> tuple[Start, "FinetuneRecipe"]:
    """The start, and the recipe with what the start decides filled in.

    A checkpoint brings its pixel constants, which the recipe's own text stands above when it was named, and, being
    what it is, the depth and width of its trunk, and of an mgn its heads, which only `--set` and named flags stand
    above.
    """
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    if any(entry.partition("=")[0].strip() == "data.batch" for entry in overrides):
        raise UsageError(
            "data.batch: a batch of fine-tuning is data.persons persons with data.images images each",
            hint="--set data.persons=16 --set data.images=4",
        )
    # What is wanted of a start is in the recipe, and what the start is decides the rest of it.
    asked = resolve_recipe("finetune", recipe or DEFAULT_RECIPE, overrides=overrides, flags=flags)
    assert isinstance(asked, FinetuneRecipe)
    named = asked.start or None
    origin = find_start(space, named, None if named else asked.net.arch, progress)
    facts = network_facts(origin, asked.net.head)
    if recipe is None:
        recipe, constants = default_recipe(origin, asked.net.arch, progress)
        facts |= constants
    final = resolve_recipe(
        "finetune",
        recipe,
        overrides=overrides,
        flags={**flags, "start": origin.name},
        facts=facts,
        adopted=pixel_constants(origin),
    )
    assert isinstance(final, FinetuneRecipe)
    return origin, final


def network_facts(origin: Start, head: ReidHead) -> dict[str, Any]:
    """What a start decides of the network, by the recipe's keys: its trunk, and its heads where `head` is like them."""
    from lupctl.core.formats.weights.plan import MgnHead

    if origin.header is None:
        return {}
    trunk, own = origin.header.network.trunk, origin.header.network.head
    facts: dict[str, Any] = {"net.arch": trunk.arch, "net.width": trunk.width}
    if isinstance(own, MgnHead) and head == "mgn":
        facts |= {"net.embedding": own.embedding, "net.extra_bn": own.extra_bn}
    return facts


def pixel_constants(origin: Start) -> dict[str, Any]:
    """The constants of a start's pixels, by the recipe's keys."""
    if origin.header is None:
        return {}
    pixels = origin.header.preprocessing
    return {"pixels.mean": pixels.mean, "pixels.std": pixels.std}


def default_recipe(origin: Start, arch: Arch, progress: Progress) -> tuple[str, dict[str, Any]]:
    """The recipe for a start when nobody names one, and the pixel constants of that start where the recipe's are wrong.

    Constants of a start that are neither LUPerson's nor LUPerson-NL's are its own, and are kept; so do the published
    runs from momentum contrast on ImageNet, which have the extra batch norm too.
    """
    from lupctl.core.recipes.sections import LUPERSON_MEAN, LUPERSON_NL_MEAN

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
    """Where a run goes when nobody says: the same command finds it again, one of another part or seed does not."""
    begun = Path(origin.name).stem if origin.checkpoint is not None else origin.name
    if begun == "checkpoint" and origin.checkpoint is not None:
        begun = origin.checkpoint.resolve().parent.name
    words = ["finetune", "+".join(pack.stem for pack in packs), recipe.net.arch, "from", begun]
    data = recipe.data
    if data.subset:
        words.append(Path(data.subset.replace(":", "-")).name.removesuffix(".txt"))
    if data.subset_seed:
        words.append(f"part{data.subset_seed}")
    if data.repeat != 1:
        words.append(f"repeat-{data.repeat:g}" if isinstance(data.repeat, float) else f"repeat-{data.repeat}")
    if recipe.seed != TRAINING_SEED:  # a run of another seed has it in its name
        words.append(f"seed{recipe.seed}")
    return space.runs / "-".join(words)
