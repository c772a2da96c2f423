"""What SOLIDER's second stage starts from, and what that decides of its recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.choices import SCRATCH
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.training.pretraining import resolve
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.weights.plan import NetworkPlan
    from lupctl.core.recipes.models import PretrainRecipe

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
    facts = scratch_facts(name, recipe.solider.start, progress)
    found, method_file = find_solider_start(space, recipe, progress, planned=planned)
    return resolve(name, {**flags, "solider.start": found}, overrides, facts), method_file


def scratch_facts(name: str, start: str, progress: Progress) -> dict[str, Any]:
    """The rate and the schedule of a start from scratch, by recipe key, for a recipe that has a first stage.

    Args:
        name: of the recipe.
        start: that was asked for.
        progress: takes the line that says so.
    """
    if start != SCRATCH or name not in FIRST_STAGE:
        return {}
    from lupctl.core.recipes.shipped import resolve_recipe

    first = resolve_recipe("pretrain", FIRST_STAGE[name])
    schedule = {f"schedule.{key}": value for key, value in first.schedule.model_dump(exclude_unset=True).items()}
    progress.say(
        f"schedule: {first.schedule.epochs} epochs at a rate of {first.optim.lr:g}, those of {FIRST_STAGE[name]}, from "
        "scratch"
    )
    return {"optim.lr": first.optim.lr, **schedule}


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
        return wanted, _method_file(find_checkpoint(space, wanted, others=(SCRATCH,)), recipe.net.arch)
    found = _newest(space, recipe)
    if found is not None:
        progress.say(f"start: {found} (the newest run of dino with these networks here)")
        return found.name, _method_file(found / CHECKPOINT_NAME, recipe.net.arch)
    error = DataError(
        f"{space.runs}: no finished run of dino with the networks of this recipe to start from",
        hint=f"lupctl pretrain --method dino --arch {recipe.net.arch}, or choose --from scratch",
    )
    if not planned:
        raise error
    progress.say(f"start: unknown; {error.message}\nhint: {error.hint}")
    return "", None


def _newest(space: Workspace, recipe: "PretrainRecipe") -> Path | None:
    """The newest run of dino whose trunk and head are those of a recipe."""
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.recipes.solider_sections import HEAD_KEYS
    from lupctl.core.stages.pretrain.job import student_plan

    wanted, head = _without_weight(student_plan(recipe)), recipe.settings.model_dump(include=set(HEAD_KEYS))
    for run in space.finished_runs("pretrain"):
        header = read_header(run / CHECKPOINT_NAME)
        tables = header.recipe or {}
        own = tables.get("dino")
        if tables.get("method") != "dino" or not isinstance(own, dict):
            continue
        if _without_weight(header.network) == wanted and head.items() <= own.items():
            return run
    return None


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
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.training.engine.runs import METHOD_NAME

    if path.name == METHOD_NAME:
        return path
    header, beside = read_header(path), path.with_name(METHOD_NAME)
    if header.stage == "pretrain" and beside.is_file():
        return beside
    kind = {"pretrain": "a pre-trained", "finetune": "a fine-tuned", "convert": "a converted"}[header.stage]
    raise UsageError(
        f"{path}: {kind} network alone; solider starts from student and teacher with their heads, which a run of dino "
        f"or solider has in its {METHOD_NAME}",
        hint=f"lupctl pretrain --method dino --arch {arch} makes a start; or --from scratch",
    )
