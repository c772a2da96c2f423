"""What a short fine-tuning command means: its recipe, its start and its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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


# A run of another seed has it in its name.
DEFAULT_SEED = 1


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
    first = resolve_recipe("finetune", recipe or DEFAULT_RECIPE, overrides=overrides, flags=flags)
    assert isinstance(first, FinetuneRecipe)
    named = first.start or None
    origin = find_start(space, named, None if named else first.net.arch, progress)
    if recipe is None:
        recipe, more = default_recipe(origin, first.net.arch, progress)
        overrides = [*more, *overrides]
    adopted: dict[str, Any] = {}
    if origin.checkpoint is not None:
        network, pixels = origin.header["network"], origin.header["preprocessing"]
        adopted = {"pixels.mean": pixels["mean"], "pixels.std": pixels["std"]}
        heads = ("embedding", "extra_bn") if network["head"] == "mgn" and first.net.head == "mgn" else ()
        facts = [f"net.{key}={str(network[key]).lower()}" for key in ("arch", "width", *heads)]
        overrides = [*facts, *overrides]
    final = resolve_recipe(
        "finetune", recipe, overrides=overrides, flags={**flags, "start": origin.name}, adopted=adopted
    )
    assert isinstance(final, FinetuneRecipe)
    return origin, final


def default_recipe(origin: Start, arch: str, progress: Progress) -> tuple[str, list[str]]:
    """The recipe for a start when nobody names one, and what that start has that the recipe has not.

    Constants of a start that are neither LUPerson's nor LUPerson-NL's are its own, and are kept; so do the published
    runs from momentum contrast on ImageNet, which have the extra batch norm too.
    """
    from lupctl.core.recipes.sections import LUPERSON_MEAN, LUPERSON_NL_MEAN

    recipe, settings, why = DEFAULT_RECIPE, list[str](), ""
    if origin.checkpoint is None:
        if origin.name == "imagenet":
            recipe = f"{IMAGENET_RECIPE}-r101" if arch == "r101" else IMAGENET_RECIPE
    else:
        pixels = origin.header["preprocessing"]
        mean = tuple(pixels["mean"])
        if mean == LUPERSON_NL_MEAN:
            recipe = NL_RECIPE
        elif mean != LUPERSON_MEAN:
            settings = [f"pixels.mean={list(mean)}", f"pixels.std={list(pixels['std'])}"]
            why = ", with the start's pixel constants"
    progress.say(f"recipe: {recipe} (the default for this start{why}; --recipe bot is lighter)")
    return recipe, settings


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
    if recipe.seed != DEFAULT_SEED:
        words.append(f"seed{recipe.seed}")
    return space.runs / "-".join(words)
