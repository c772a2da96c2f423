"""What a short pre-training command means: recipe, devices, data and folder, and what a person should know of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.choices import Method
from lupctl.core.errors import DataError
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.resolve.training.batch import take_batch
from lupctl.core.resolve.training.folders import choose_run
from lupctl.core.resolve.training.keeping import say_kept
from lupctl.core.resolve.training.schedule import say_lengths
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.pretrain_sections import PnlSettings
    from lupctl.core.stages.pretrain.job import PretrainJob


DEFAULT_METHOD: Final[Method] = "moco"
# With every method, its default recipe; the first two also have one for each of the two deeper networks.
RECIPE_OF_METHOD: Final[Mapping[Method, str]] = {
    "moco": "luperson-moco",
    "pnl": "luperson-nl-pnl",
    "simclr": "luperson-nl-simclr",
    "supcon": "luperson-nl-supcon",
    "dino": "dino-vit-s",
    "solider": "solider-swin-t",
}
DEEP_ARCHS, DEEP_METHODS = ("r101", "r152"), ("moco", "pnl")
# For the vision transformers of every size.
MOCO_VIT: Final = "luperson-moco-vit"
# For architectures with their own recipe; the others take that of their family.
DINO_OF_ARCH: Final[Mapping[str, str]] = {"vit-s-ics": "dino-vit-s-ics", "vit-b-ics": "dino-vit-b-ics"}
DINO_RESNET: Final = "dino-resnet"
# For Swin transformers, the self-distillation before SOLIDER, which is also their default without a method.
DINO_OF_SWIN: Final[Mapping[str, str]] = {
    "swin-u": "small-dino-swin",
    "swin-t": "dino-swin-t",
    "swin-s": "dino-swin-s",
    "swin-b": "dino-swin-b",
}


def default_recipe(arch: str | None, method: Method | None, progress: Progress) -> str:
    """The default recipe of a method and an architecture; reports which it is."""
    if arch is not None and arch in DINO_OF_SWIN and method in (None, "dino"):
        progress.say(f"recipe: {DINO_OF_SWIN[arch]} (SOLIDER's first stage, the default for Swin transformers)")
        return DINO_OF_SWIN[arch]
    wanted = method or DEFAULT_METHOD
    recipe = RECIPE_OF_METHOD[wanted]
    if wanted == "solider":
        from lupctl.core.recipes.solider_sections import SOLIDER_OF_ARCH

        recipe = next((name for own, name in SOLIDER_OF_ARCH.items() if own == arch), recipe)
        progress.say(f"recipe: {recipe} (SOLIDER's second stage, the default)")
        return recipe
    if wanted == "moco" and arch is not None and arch.startswith("vit-"):
        progress.say(f"recipe: {MOCO_VIT} (the default for momentum contrast of vision transformers)")
        return MOCO_VIT
    if wanted == "dino":
        if arch is not None and not arch.startswith("vit-"):
            progress.say(f"recipe: {DINO_RESNET} (the default for self-distillation of residual networks)")
            return DINO_RESNET
        recipe = recipe if arch is None else DINO_OF_ARCH.get(arch, recipe)
        progress.say(f"recipe: {recipe} (TransReID-SSL's, the default)")
        return recipe
    whose = "LUPerson's" if wanted == "moco" else "LUPerson-NL's"
    if arch in DEEP_ARCHS and wanted in DEEP_METHODS:
        recipe = f"{recipe}-{arch}"
    progress.say(f"recipe: {recipe} ({whose}, the default)")
    return recipe


def resolve(
    recipe: str, flags: dict[str, Any], overrides: list[str], facts: Mapping[str, Any] | None = None
) -> "PretrainRecipe":
    """The recipe of a command with everything filled in.

    Args:
        recipe: shipped name or TOML file.
        flags: of named options.
        overrides: `--set` entries.
        facts: keys that a start decides.

    Raises:
        UsageError: an unknown name or key, or a value that is not allowed.
    """
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    flags = take_batch("pretrain", recipe, overrides, flags)
    resolved = resolve_recipe("pretrain", recipe, overrides=overrides, flags=flags, facts=facts)
    assert isinstance(resolved, PretrainRecipe)
    return resolved


def say_threads(job: "PretrainJob", progress: Progress) -> None:
    """A line on how many threads a process takes where that is not simply all there are."""
    from lupctl.core.stages.pretrain.job import threads_of

    threads, recipe = threads_of(job), job.recipe
    if threads is None or recipe.bn_groups % job.placement.processes:  # then groups span processes
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


def say_what_follows(job: "PretrainJob", name: str, progress: Progress, *, planned: bool = False) -> None:
    """Lines on threads and labels, and on what a change of the recipe leaves undone, where a person would want to know.

    Args:
        job: to be run.
        name: of its recipe, before `--set` and named options.
        progress: takes the lines.
        planned: for a plan, which may have no data yet.
    """
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.pretrain_sections import shuffles_keys
    from lupctl.core.recipes.shipped import resolve_recipe

    recipe, shipped = job.recipe, resolve_recipe("pretrain", name)
    assert isinstance(shipped, PretrainRecipe)
    say_threads(job, progress)
    say_kept(job, progress)
    say_labels(job, progress, planned=planned)
    if recipe.data.batch != shipped.data.batch and recipe.optim.lr == shipped.optim.lr:
        rate = shipped.optim.lr * recipe.data.batch / shipped.data.batch
        progress.say(
            f"rate: {recipe.optim.lr:g}, made for a batch of {shipped.data.batch}; in proportion to "
            f"{recipe.data.batch} it would be {rate:.3g}: --lr {rate:.3g}"
        )
    say_lengths(recipe, shipped, progress)
    if recipe.dino is not None and recipe.dino.frozen_epochs >= recipe.schedule.epochs:
        frozen = count_things(recipe.dino.frozen_epochs, "epoch")
        progress.say(
            f"last layer: never trained, because it is frozen for {frozen} of {recipe.schedule.epochs}: "
            "--set dino.frozen_epochs=0"
        )
    if recipe.bn_groups == 1 and shuffles_keys(recipe.settings) and recipe.has_batch_norm:
        progress.say("batch norm: one group; the shuffle of keys then hides nothing of the shared statistics")


def say_labels(job: "PretrainJob", progress: Progress, *, planned: bool = False) -> None:
    """A line on the labels that a method learns from, and on what is left out because it has none.

    Args:
        job: its packs.
        progress: takes the line.
        planned: for a plan, which may have no data yet.
    """
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.recipes.pretrain_sections import PnlSettings, uses_labels
    from lupctl.core.stages.pretrain.job import choose_rows
    from lupctl.core.stages.pretrain.labels import LUPERSON_NL_LABELS, labelled_rows, read_labels, trainable_rows

    settings, epochs = job.recipe.settings, job.recipe.schedule.epochs
    if not uses_labels(settings):
        return
    if isinstance(settings, PnlSettings):
        say_phases(settings, epochs, progress)
    if not job.packs:
        if planned:
            progress.say(f"labels: {LUPERSON_NL_LABELS:,}, those of LUPerson-NL")
        return
    packs = [open_pack(path) for path in job.packs]
    rows = choose_rows(job.recipe, packs).rows
    labels, left = read_labels(packs, rows), len(trainable_rows(packs)) - len(labelled_rows(packs, job.recipe.method))
    more = f"; {left:,} more images have none and are left out" if left else ""
    if labels.truth is not None and labels.persons is not None:
        pure = (labels.persons[labels.label] == labels.truth).mean()
        more += f"; of {len(set(labels.truth.tolist())):,} persons, purity {pure:.1%}"
    progress.say(f"labels: {labels.num_classes:,} on {len(rows):,} images{more}")


def say_phases(settings: "PnlSettings", epochs: int, progress: Progress) -> None:
    """Lines on the phases that a run of some epochs is too short for."""
    if not settings.has_prototypes:
        return
    if settings.prototype_epoch >= epochs:
        progress.say(
            f"labels: prototypes will only fill, because their loss begins after "
            f"{count_things(settings.prototype_epoch, 'epoch')} of {epochs}; none will be corrected: "
            f"--epochs {settings.prototype_epoch + 1}"
        )
        return
    if settings.correction_epoch >= epochs:
        progress.say(
            f"labels: none will be corrected, which begins after {settings.correction_epoch} epochs of {epochs}: "
            f"--set pnl.correction_epoch={max(epochs // 8, settings.prototype_epoch)}"
        )
    if settings.variant == "ce+pro+lgc" and settings.positives_epoch >= epochs:
        progress.say(
            f"labels: none will have positives in the queue, which begin after {settings.positives_epoch} epochs of "
            f"{epochs}: --set pnl.positives_epoch={max(epochs // 6, 1)}"
        )


def default_run(space: Workspace, recipe: "PretrainRecipe", packs: tuple[Path, ...]) -> Path:
    """The default folder of a run: the same command finds it again."""
    from lupctl.core.recipes.vit_sections import typed_arch

    arch = typed_arch(recipe.net.arch, recipe.vit)
    return space.runs / "-".join(["pretrain", recipe.method, arch, *(path.stem for path in packs)])


def find_pretraining_packs(
    space: Workspace, recipe: "PretrainRecipe", progress: Progress, *, planned: bool = False
) -> tuple[Path, ...]:
    """The packs named, else the workspace's one unlabelled pack, or its one labelled pack.

    Args:
        space: the workspace.
        recipe: its `data.packs` names them; its method decides whether they need labels.
        progress: takes the line that names the choice.
        planned: for a plan; where no pack was named and there is none yet, this is reported and none is returned.

    Raises:
        DataError: a named pack is missing, or there is not exactly one candidate.
    """
    if recipe.data.packs:
        return tuple(pick_pack(space, name, progress) for name in recipe.data.packs)
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.recipes.pretrain_sections import uses_labels

    labelled = uses_labels(recipe.settings)
    wanted, kind = ROLE_CODES["train" if labelled else "unlabelled"], "labelled" if labelled else "unlabelled"
    found = [path for path in space.pack_paths() if bool((open_pack(path).samples.role == wanted).any())]
    if len(found) == 1:
        progress.say(f"data: {found[0]} (the only {kind} pack here)")
        return (found[0],)
    if not found:
        others = [path.stem for path in space.pack_paths()]
        other = f" ({'unlabelled' if labelled else 'labelled'}: {', '.join(others)})" if others else ""
        hint = "put images under raw/NAME of the workspace, then: lupctl data pack"
        if others:
            hint = "--method moco needs no labels" if labelled else f"--data {others[0]} trains on its training images"
        error = DataError(f"{space.packs}: no {kind} pack to pre-train on{other}", hint=hint)
        if not planned:
            raise error
        progress.say(f"data: unknown; {error.message}")
        progress.say(f"hint: {error.hint}")
        return ()
    raise DataError(
        f"{space.packs}: {len(found)} {kind} packs ({', '.join(path.stem for path in found)})",
        hint=f"choose one or more: --data {found[0].stem}",
    )
