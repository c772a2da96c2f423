"""A recipe in a few words: what it trains, on what, for how long."""

from lupctl.core.recipes.models import PretrainRecipe, Recipe
from lupctl.core.recipes.osnet_sections import is_osnet
from lupctl.core.recipes.swin_sections import SwinNet

NAMES = {
    "bnneck": "bag of tricks",
    "mgn": "MGN",
    "jpm": "TransReID with its jigsaw patch module",
    "fc": "torchreid's head",
    "moco": "MoCo",
    "dino": "DINO",
    "solider": "SOLIDER",
}


def recipe_words(recipe: Recipe) -> dict[str, str]:
    """The lines that tell one recipe from another, by what they are about.

    >>> from lupctl.core.recipes.models import FinetuneRecipe
    >>> recipe_words(FinetuneRecipe())["batch"]
    '64 images: 16 persons with 4 images each'
    """
    pixels, optim, schedule = recipe.pixels, recipe.optim, recipe.schedule
    rate = f"{optim.name}, rate {optim.lr:g}, weight decay {optim.weight_decay:g}"
    return {
        "network": f"{_title(recipe)} on {_trunk(recipe)}",
        "image size": f"{pixels.height} x {pixels.width}",
        "epochs": f"{schedule.epochs}",
        "batch": _batch(recipe),
        **({"part": part} if (part := _part(recipe)) else {}),
        "optimizer": f"{rate}, {_schedule(recipe)}",
        "seed": f"{recipe.seed}",
    }


def _title(recipe: Recipe) -> str:
    is_plain = recipe.vit is None and recipe.swin is None
    if not isinstance(recipe, PretrainRecipe) and not is_plain and recipe.net.head == "bnneck":
        return "BNNeck"
    name = recipe.method if isinstance(recipe, PretrainRecipe) else recipe.net.head
    return NAMES.get(name, name)


def _trunk(recipe: Recipe) -> str:
    """The trunk, with what differs from the published network of this name."""
    net, vit, swin = recipe.net, recipe.vit, recipe.swin
    if swin is not None:
        return _swin(net.arch, swin)
    if is_osnet(net.arch):
        return net.arch.replace("osnet-", "OSNet-").replace("ain-", "AIN-").replace("ibn-", "IBN-")
    if vit is None:
        return net.arch.upper() + ("" if net.width == 64 else f", width {net.width}")
    name = f"ViT-{net.arch.removeprefix('vit-').upper()}/{vit.patch}"
    more = [f"stride {vit.stride}"] if vit.stride != vit.patch else []
    more += [f"{vit.depth} blocks"] if vit.depth else []
    more += ["ICS stem"] if vit.stem == "ics" else []
    more += [f"{vit.parts} part tokens"] if vit.parts else []
    return ", ".join([name, *more])


def _swin(arch: str, swin: SwinNet) -> str:
    more = [f"patch {swin.patch}"] if swin.patch != SwinNet().patch else []
    more += [f"window {swin.window}"] if swin.window != SwinNet().window else []
    more += [f"{'-'.join(map(str, swin.depths))} blocks"] if swin.depths else []
    more += [] if swin.semantic_weight == "none" else [f"semantic weight {swin.semantic_weight:g}"]
    return ", ".join([f"Swin-{arch.removeprefix('swin-').upper()}", *more])


def _batch(recipe: Recipe) -> str:
    if isinstance(recipe, PretrainRecipe):
        return f"{recipe.data.batch:,} images in {recipe.bn_groups} batch-norm groups"
    data = recipe.data
    if data.order == "shuffled":
        return f"{data.persons * data.images:,} images, shuffled"
    return f"{data.persons * data.images:,} images: {data.persons} persons with {data.images} images each"


def _schedule(recipe: Recipe) -> str:
    schedule = recipe.schedule
    fall: str = schedule.kind
    if schedule.kind == "steps":
        after = " and ".join(map(str, schedule.milestones))
        fall = f"a tenth after epochs {after}" if after else "constant"
    if schedule.kind == "transreid":
        fall = "TransReID's cosine"
    if schedule.kind == "dino":
        fall = "DINO's cosine"
    return f"{fall}, warm-up of {schedule.warmup_epochs:g} epochs" if schedule.warmup_epochs else fall


def _part(recipe: Recipe) -> str:
    """The part of the training set that a recipe takes; empty for all of it."""
    if isinstance(recipe, PretrainRecipe) or not recipe.data.subset:
        return ""
    repeat = recipe.data.repeat
    return recipe.data.subset + ("" if repeat == 1 else f", repeated: {repeat}")
