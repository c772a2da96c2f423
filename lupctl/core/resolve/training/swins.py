"""What a start decides of the Swin transformer that is fine-tuned from it."""

from typing import TYPE_CHECKING, Any

from lupctl.core.resolve.checkpoints import Start
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.recipes.swin_sections import FinetuneSwin


def network_facts(origin: Start, swin: "FinetuneSwin", progress: Progress) -> dict[str, Any]:
    """The settings that a start decides, by recipe key: its patches, its blocks, and whether it has a controller.

    Its architecture is not among them: a recipe for another one is refused, because its rate is for that one.

    Args:
        origin: the start.
        swin: the recipe's own settings.
        progress: takes the line on a controller that the recipe has and the start lacks.
    """
    from lupctl.core.formats.weights.swin_plan import SWIN_SIZES, SwinPlan

    facts: dict[str, Any] = {}
    trunk = None if origin.header is None else origin.header.network.trunk
    if isinstance(trunk, SwinPlan):
        if trunk.arch is None:  # refused by the stage
            return {}
        facts = {"swin.patch": trunk.patch}
        facts["swin.depths"] = [] if trunk.depths == SWIN_SIZES[trunk.arch][1] else list(trunk.depths)
        if trunk.semantic_weight is not None:
            return facts
    if swin.train_controller:
        return facts
    if swin.semantic_weight != "none":
        progress.say(
            f"controller: none, because {origin.name} has none; "
            f"--set swin.semantic_weight={swin.semantic_weight:g} --set swin.train_controller=true trains a new one"
        )
    return {**facts, "swin.semantic_weight": "none"}
