"""What a short pre-training command means: recipe, devices, data and folder, and what a person should know of them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.resolve.training.batch import take_batch
from lupctl.core.resolve.training.folders import choose_run
from lupctl.core.resolve.training.schedule import say_lengths
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.stages.pretrain.job import PretrainJob


DEFAULT_RECIPE = "luperson-moco"
RECIPE_OF_ARCH = {"r101": "luperson-moco-r101", "r152": "luperson-moco-r152"}


def default_recipe(arch: str | None, progress: Progress) -> str:
    """The default recipe of an architecture; reports which it is."""
    recipe = RECIPE_OF_ARCH.get(arch or "", DEFAULT_RECIPE)
    progress.say(f"recipe: {recipe} (LUPerson's, the default)")
    return recipe


def resolve(recipe: str, flags: dict[str, Any], overrides: list[str]) -> "PretrainRecipe":
    """The recipe of a command with everything filled in.

    Raises:
        UsageError: an unknown name or key, or a value that is not allowed.
    """
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    flags = take_batch("pretrain", recipe, overrides, flags)
    resolved = resolve_recipe("pretrain", recipe, overrides=overrides, flags=flags)
    assert isinstance(resolved, PretrainRecipe)
    return resolved


def say_threads(job: "PretrainJob", progress: Progress) -> None:
    """A line on how many threads a process takes where that is not simply all there are."""
    from lupctl.core.stages.pretrain.job import threads_of

    threads, recipe = threads_of(job), job.recipe
    if threads is None or recipe.bn_groups % job.placement.processes:  # the latter is refused in a moment
        return
    why = "" if recipe.net.compile else ", so that any --processes gives the same bits"
    line = f"threads: {threads} for each process (cores / bn_groups){why}"
    progress.say(f"{line}; without --processes one process takes every core")


def settle(job: "PretrainJob", *, is_named: bool, progress: Progress) -> "PretrainJob":
    """The job in the folder that it continues or begins, unless its folder was named."""
    from lupctl.core.stages.pretrain.job import describe_setup

    if is_named:
        return job
    return replace(job, run=choose_run(job.run, lambda: describe_setup(job), force=job.force, progress=progress))


def say_what_follows(job: "PretrainJob", name: str, progress: Progress) -> None:
    """Lines on threads, and on what a change of the recipe leaves undone, where a person would want to know.

    Args:
        job: to be run.
        name: of its recipe, before `--set` and named options.
        progress: takes the lines.
    """
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    recipe, shipped = job.recipe, resolve_recipe("pretrain", name)
    assert isinstance(shipped, PretrainRecipe)
    say_threads(job, progress)
    if recipe.data.batch != shipped.data.batch and recipe.optim.lr == shipped.optim.lr:
        rate = shipped.optim.lr * recipe.data.batch / shipped.data.batch
        progress.say(
            f"rate: {recipe.optim.lr:g}, made for a batch of {shipped.data.batch}; in proportion to "
            f"{recipe.data.batch} it would be {rate:.3g}: --lr {rate:.3g}"
        )
    say_lengths(recipe, shipped, progress)
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
