"""What SOLIDER's second stage starts from, and what that decides of its recipe."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.choices import SCRATCH, Method
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.training.pretraining import DEFAULT_METHOD, resolve
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.weights.plan import NetworkPlan
    from lupctl.core.recipes.models import PretrainRecipe

CONVERT: Final = "lupctl model convert --training"
# The first stage of each recipe, whose rate and schedule it has from scratch, as published.
FIRST_STAGE: Final[Mapping[str, str]] = {
    "solider-swin-t": "dino-swin-t",
    "solider-swin-s": "dino-swin-s",
    "solider-swin-b": "dino-swin-b",
    "small-solider": "small-dino-swin",
}


def resolve_started(
    space: Workspace,
    name: str,
    start: str | None,
    *,
    flags: Mapping[str, Any],
    overrides: list[str],
    progress: Progress,
    planned: bool,
) -> "tuple[PretrainRecipe, Path | None]":
    """The recipe of a command with everything filled in, and the method file that it starts from, if any.

    Args:
        space: the workspace.
        name: shipped name or TOML file.
        start: named by `--from`.
        flags: of named options.
        overrides: `--set` entries.
        progress: takes the lines on choices.
        planned: for a plan, which may have no start yet.

    Raises:
        UsageError: as `resolve`; or a start of a method that has none.
        DataError: there is nothing to start from.
    """
    refuse_other_recipe(name, flags, overrides)
    recipe = resolve(name, {**flags}, overrides)
    if recipe.solider is None:
        if start is None:
            return recipe, None
        raise UsageError(
            f"--from {start}: {recipe.method} begins from random weights; only the method solider takes a start",
            hint="leave out --from, or --method solider --arch swin-t",
        )
    recipe = resolve(name, {**flags, "solider.start": start}, overrides)
    assert recipe.solider is not None
    found, method_file = find_solider_start(space, recipe, progress, planned=planned)
    flags = {**flags, "solider.start": found}
    first = schedule_recipe(name, recipe)
    if first == name:
        return resolve(name, flags, overrides), method_file
    recipe = resolve(name, flags, overrides, scratch_facts(first))
    say_scratch(recipe, first, progress)
    return recipe, method_file


def refuse_other_recipe(name: str, flags: Mapping[str, Any], overrides: list[str]) -> None:
    """Refuses a recipe with the section of another method where solider is asked for: its trunk would not do either.

    Raises:
        UsageError: names the recipe to take instead.
    """
    from lupctl.core.recipes.shipped import join_tables
    from lupctl.core.recipes.solider_sections import SOLIDER_OF_ARCH

    own = join_tables("pretrain", name)[0].get("method", DEFAULT_METHOD)
    given = {key: flags.get(key) for key in ("method", "net.arch")}
    tables = join_tables("pretrain", name, overrides=overrides, flags=given)[0]
    if tables.get("method") != "solider" or own in ("dino", "solider") or own not in tables:
        return
    net = tables.get("net")
    arch = net.get("arch") if isinstance(net, Mapping) else None
    fitting = next((recipe for known, recipe in SOLIDER_OF_ARCH.items() if known == arch), SOLIDER_OF_ARCH["swin-u"])
    more = ", without --arch" if flags.get("net.arch") not in (None, *SOLIDER_OF_ARCH) else ""
    raise UsageError(
        f"{name}: a recipe of {own}, whose section and trunk are not those of solider", hint=f"--recipe {fitting}{more}"
    )


def schedule_recipe(name: str, recipe: "PretrainRecipe") -> str:
    """The recipe whose rate and schedule a run has: from scratch that of the first stage, if it has one.

    Args:
        name: of the recipe.
        recipe: with its start filled in.
    """
    is_new = recipe.solider is not None and recipe.solider.start == SCRATCH
    return FIRST_STAGE.get(name, name) if is_new else name


def scratch_facts(first: str) -> dict[str, Any]:
    """The rate and the schedule of a start from scratch, by recipe key.

    Args:
        first: recipe of the first stage.
    """
    from lupctl.core.recipes.shipped import resolve_recipe

    found = resolve_recipe("pretrain", first)
    schedule = {f"schedule.{key}": value for key, value in found.schedule.model_dump(exclude_unset=True).items()}
    return {"optim.lr": found.optim.lr, **schedule}


def say_scratch(recipe: "PretrainRecipe", first: str, progress: Progress) -> None:
    """A line on the rate and the schedule of a start from scratch, and whose they are."""
    from lupctl.core.recipes.shipped import resolve_recipe

    found = resolve_recipe("pretrain", first)
    mine, theirs = ((one.schedule.epochs, one.optim.lr) for one in (recipe, found))
    whose = f", those of {first}" if mine == theirs else f"; {first} has {theirs[0]} epochs at {theirs[1]:g}"
    progress.say(f"schedule: {mine[0]} epochs at a rate of {mine[1]:g} from scratch{whose}")


def find_solider_start(
    space: Workspace, recipe: "PretrainRecipe", progress: Progress, *, planned: bool
) -> tuple[str, Path | None]:
    """The start of a recipe of SOLIDER as a user would call it, and its method file.

    Args:
        space: the workspace.
        recipe: its `solider.start` names it; empty looks for the newest run of dino that fits.
        progress: reports the choice.
        planned: for a plan; where none was named and there is none yet, this is reported and none is returned.

    Raises:
        DataError: there is nothing to start from.
        UsageError: the start named has one network alone.
    """
    assert recipe.solider is not None
    wanted = recipe.solider.start
    if wanted == SCRATCH:
        return SCRATCH, None
    if wanted:
        fitting = [*_fitting(space, recipe, "dino"), *_fitting(space, recipe, "solider")]
        path = find_checkpoint(space, wanted, others=(SCRATCH,), fitting=fitting, convert=CONVERT)
        return wanted, _method_file(path, recipe.net.arch)
    found = next(_fitting(space, recipe, "dino"), None)
    if found is not None:
        progress.say(f"start: {found} (the newest run of dino with these networks here)")
        return found.name, _method_file(found / CHECKPOINT_NAME, recipe.net.arch)
    error = DataError(
        f"{space.runs}: no finished run of dino with the networks of this recipe to start from",
        hint=f"lupctl pretrain --method dino --arch {recipe.net.arch}, or choose --from scratch",
    )
    if not planned:
        raise error
    progress.say(f"start: unknown; {error.message}")
    progress.say(f"hint: {error.hint}")
    return "", None


def _fitting(space: Workspace, recipe: "PretrainRecipe", method: Method) -> Iterator[Path]:
    """The runs of a method whose trunk and head are those of a recipe, newest first."""
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.recipes.solider_sections import HEAD_KEYS
    from lupctl.core.stages.pretrain.job import student_plan

    wanted, head = _without_weight(student_plan(recipe)), recipe.settings.model_dump(include=set(HEAD_KEYS))
    for run in space.finished_runs("pretrain"):
        header = read_header(run / CHECKPOINT_NAME)
        tables = header.recipe or {}
        own = tables.get("dino")
        if tables.get("method") != method or not isinstance(own, dict):
            continue
        if _without_weight(header.network) == wanted and head.items() <= own.items():
            yield run


def _without_weight(plan: "NetworkPlan") -> "NetworkPlan | None":
    """A network on a Swin, whatever the semantic weight of its images; None if it has no controller."""
    from lupctl.core.formats.weights.swin_plan import SwinPlan

    if not isinstance(plan.trunk, SwinPlan) or plan.trunk.semantic_weight is None:
        return None
    return plan.model_copy(update={"trunk": plan.trunk.model_copy(update={"semantic_weight": 0.0})})


def _method_file(path: Path, arch: str) -> Path:
    """The file with all networks of a run, from its checkpoint; another file stays, and is checked by the stage.

    Raises:
        UsageError: the checkpoint is of no pre-training, or is alone.
    """
    from lupctl.core.formats.weights.header import is_method, read_header
    from lupctl.core.training.engine.runs import METHOD_NAME

    if path.name == METHOD_NAME or is_method(path):
        return path
    header, beside = read_header(path), path.with_name(METHOD_NAME)
    if header.stage == "pretrain" and beside.is_file():
        return beside
    kind = {"pretrain": "a pre-trained", "finetune": "a fine-tuned", "convert": "a converted"}[header.stage]
    raise UsageError(
        f"{path}: {kind} network alone; solider starts from student and teacher with their heads, which a run of dino "
        f"or solider has in its {METHOD_NAME}, and {CONVERT} FILE.pth makes of a training checkpoint",
        hint=f"lupctl pretrain --method dino --arch {arch} makes a start; or --from scratch",
    )
