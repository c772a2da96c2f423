"""What a short pre-training command means: recipe, devices, data and folder, and what a person should know of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import PretrainRecipe, Recipe
    from lupctl.core.stages.pretrain.job import PretrainJob


DEFAULT_RECIPE = "luperson-moco"
RECIPE_OF_ARCH = {"r101": "luperson-moco-r101", "r152": "luperson-moco-r152"}


def default_recipe(arch: str | None, progress: Progress) -> str:
    """The default recipe of an architecture; reports which it is."""
    recipe = RECIPE_OF_ARCH.get(arch or "", DEFAULT_RECIPE)
    progress.say(f"recipe: {recipe} (LUPerson's, the default)")
    return recipe


def say_threads(job: "PretrainJob", progress: Progress) -> None:
    """A line on how many threads a process takes where that is not simply all there are."""
    from lupctl.core.stages.pretrain.job import threads_of

    threads, recipe = threads_of(job), job.recipe
    if threads is None or recipe.bn_groups % job.placement.processes:  # the latter is refused in a moment
        return
    why = "" if recipe.net.compile else ", so that any --processes gives the same bits"
    line = f"threads: {threads} for each process (cores / bn_groups){why}"
    progress.say(f"{line}; without --processes one process takes every core")


def say_what_follows(recipe: "PretrainRecipe", shipped: "Recipe", progress: Progress) -> None:
    """Lines on what a change of the recipe leaves undone, where a person would want to know."""
    from lupctl.core.recipes.models import PretrainRecipe

    assert isinstance(shipped, PretrainRecipe)
    if recipe.data.batch != shipped.data.batch and recipe.optim.lr == shipped.optim.lr:
        rate = shipped.optim.lr * recipe.data.batch / shipped.data.batch
        progress.say(
            f"rate: {recipe.optim.lr:g}, made for a batch of {shipped.data.batch}; in proportion to "
            f"{recipe.data.batch} it would be {rate:.3g}: --set optim.lr={rate:.3g}"
        )
    if recipe.bn_groups == 1:
        progress.say("batch norm: one group; the shuffle of keys then hides nothing of the shared statistics")


def default_run(space: Workspace, method: str, arch: str, packs: tuple[Path, ...]) -> Path:
    """The default folder of a run: the same command finds it again."""
    return space.runs / "-".join(["pretrain", method, arch, *(path.stem for path in packs)])


def find_pretraining_packs(
    space: Workspace, names: tuple[str, ...], progress: Progress, *, planned: bool = False
) -> tuple[Path, ...]:
    """The packs named, else the workspace's one unlabelled pack.

    Args:
        space: the workspace.
        names: from the recipe or the command line.
        progress: takes the line that names the choice.
        planned: for a plan; where no pack was named and there is none yet, this is reported and none is returned.

    Raises:
        DataError: a named pack is missing, or there is not exactly one candidate.
    """
    if names:
        return tuple(pick_pack(space, name, progress) for name in names)
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack

    unlabelled = ROLE_CODES["unlabelled"]
    found = [path for path in space.pack_paths() if bool((open_pack(path).samples.role == unlabelled).any())]
    if len(found) == 1:
        progress.say(f"data: {found[0]} (the only unlabelled pack here)")
        return (found[0],)
    if not found:
        labelled = ", ".join(path.stem for path in space.pack_paths())
        error = DataError(
            f"{space.packs}: no unlabelled pack to pre-train on" + (f" (labelled: {labelled})" if labelled else ""),
            hint=f"--data {labelled.split(', ')[0]} trains on its training images"
            if labelled
            else "put images under raw/NAME of the workspace, then: lupctl data pack",
        )
        if not planned:
            raise error
        progress.say(f"data: unknown; {error.message}\nhint: {error.hint}")
        return ()
    raise DataError(
        f"{space.packs}: {len(found)} unlabelled packs ({', '.join(path.stem for path in found)})",
        hint=f"choose one or more: --data {found[0].stem}",
    )
