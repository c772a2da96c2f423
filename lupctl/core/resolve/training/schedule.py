"""What a shorter training leaves undone of the schedule that its recipe was made with."""

from typing import TYPE_CHECKING, Any

from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.recipes.models import Recipe

LENGTHS = ("freeze_epochs", "auto_augment_epochs", "schedule.warmup_epochs", "schedule.hold_epochs")
MILESTONES = "schedule.milestones"


def say_lengths(recipe: "Recipe", shipped: "Recipe", progress: Progress) -> None:
    """A line on the parts of a schedule that are past the end of the training, with values in proportion.

    Args:
        recipe: of the training.
        shipped: the same before `--set` and named options.
        progress: takes the line.
    """
    epochs, whole = recipe.schedule.epochs, shipped.schedule.epochs
    late, scaled = [], []
    for key in LENGTHS:
        value = _read(recipe, key)
        if value is not None and value >= epochs:
            late.append(f"{key} = {value:g}")
            scaled.append(f"--set {key}={value * epochs / whole:.2g}")
    milestones = recipe.schedule.milestones if recipe.schedule.kind == "steps" else ()
    if any(milestone >= epochs for milestone in milestones):
        late.append(f"{MILESTONES} = {list(milestones)}")
        earlier = [max(1, milestone * epochs // whole) for milestone in milestones]
        scaled.append(f"--set {MILESTONES}={str(earlier).replace(' ', '')}")
    if late and epochs < whole:
        progress.say(
            f"schedule: made for {whole} epochs; {', '.join(late)} "
            f"{'reaches' if len(late) == 1 else 'reach'} past the end of {epochs}; in proportion: " + " ".join(scaled)
        )


def _read(recipe: "Recipe", key: str) -> float | None:
    tables: Any = recipe.model_dump()
    for part in key.split("."):
        tables = tables.get(part) if isinstance(tables, dict) else None
    return tables if isinstance(tables, float) else None
