"""Pixels of a converted network: of the file, of a recipe, or as published."""

from pathlib import Path

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import MgnHead, NoHead
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.sections import IMAGENET_MEAN, Pixels
from lupctl.core.recipes.shipped import find_text, resolve_recipe
from lupctl.core.recipes.text import parse_recipe
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.foreign.fitting import Recognised

NL_NAME = "lupws"


def default_recipe(found: Recognised, name: str) -> str:
    """The shipped recipe of this published network.

    PNL's prototypes distinguish LUPerson-NL from LUPerson in a training checkpoint. A bare backbone has nothing but its
    name: LUPerson-NL's files begin with lupws.
    """
    if isinstance(found.plan.head, MgnHead):
        return "mgn-luperson" if found.plan.head.extra_bn else "mgn-imagenet"
    is_nl = any(key.endswith("prototypes") for key in found.ignored) or name.lower().startswith(NL_NAME)
    return "mgn-luperson-nl" if is_nl else "luperson-moco"


def pick_pixels(found: Recognised, named: str | None, source: Path, progress: Progress) -> tuple[Pixels, str]:
    """Pixels of a network, and where their constants come from: the file, a recipe, or what is published.

    Args:
        found: the network.
        named: a recipe; None for what is published for such a network.
        source: its file.
        progress: reports constants that are not from the file.

    Raises:
        FormatError: the recipe is for images that a vision transformer's positions are not for.
    """
    if found.pixels is not None and named is None:
        whose = "ImageNet's; fine-tuning takes its recipe's" if found.is_start else "as published"
        progress.say(
            f"pixels: {source} has no constants; using mean {found.pixels.mean}, std {found.pixels.std} and "
            f"{found.pixels.interpolation} ({whose}); --recipe overrules"
        )
        return found.pixels, "published"
    recipe = named or default_recipe(found, source.name)
    pixels = read_pixels(recipe)
    if isinstance(found.plan.trunk, SwinPlan | OsnetPlan) and not isinstance(
        found.plan.head, NoHead
    ):  # takes images of any size
        return pixels, recipe
    if found.pixels is not None:
        check_size(source, found, pixels, recipe)
        same = {"height": found.pixels.height, "width": found.pixels.width}
        return pixels.model_copy(update=same), recipe
    if isinstance(found.plan.head, NoHead):  # of pre-training, whatever network that recipe fine-tunes
        pixels = Pixels(mean=pixels.mean, std=pixels.std)
    if found.mean is not None and found.std is not None:
        return pixels.model_copy(update={"mean": found.mean, "std": found.std}), "file"
    progress.say(f"pixels: {source} has no constants; using those of {recipe}")
    return pixels, recipe


def read_pixels(recipe: str) -> Pixels:
    """Pixels of a recipe of either stage."""
    text, origin = find_text(recipe, None)
    stage = parse_recipe(text, origin=origin).get("stage", "finetune")
    return resolve_recipe(stage, recipe).pixels


def check_size(source: Path, found: Recognised, pixels: Pixels, recipe: str) -> None:
    """Fails if a recipe is for images of another size than those of a fine-tuned vision transformer.

    Raises:
        FormatError: it is.
    """
    trunk = found.plan.trunk
    if not isinstance(trunk, ViTPlan) or isinstance(found.plan.head, NoHead):
        return
    rows, columns = trunk.grid(pixels.height, pixels.width)
    if (rows, columns) != (trunk.rows, trunk.columns):
        raise FormatError(
            f"{source}: its grid is {trunk.rows} x {trunk.columns}; {recipe} is for {pixels.height} x {pixels.width}, "
            f"which is {rows} x {columns} at stride {trunk.stride}",
            hint="name a recipe for images of the file's size, or leave out --recipe",
        )


def is_turned(found: Recognised) -> bool:
    """Whether a file's constants are ImageNet's in reverse, the mark of a network that expects BGR."""
    if found.mean is None:
        return False
    return all(abs(mine - theirs) < 1e-3 for mine, theirs in zip(found.mean, reversed(IMAGENET_MEAN), strict=True))
