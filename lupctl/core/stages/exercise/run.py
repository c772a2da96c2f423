"""What is tried of a machine."""

from collections.abc import Mapping, Sequence

import torch

from lupctl.core.formats.weights.plan import TrunkPlan
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.exercise.attention import attention_trials
from lupctl.core.stages.exercise.check import Trial
from lupctl.core.stages.exercise.images import image_trials
from lupctl.core.stages.exercise.messages import message_trials
from lupctl.core.stages.exercise.search import search_trials
from lupctl.core.stages.exercise.trunks import trunk_trials


def list_trials(plans: Mapping[str, TrunkPlan], recipe: FinetuneRecipe, devices: Sequence[torch.device]) -> list[Trial]:
    """Everything that is tried, the quick things first: where time is short, the last ones are skipped.

    Args:
        plans: trunks by name.
        recipe: whose images and transforms are tried.
        devices: all GPUs, or the CPU.
    """
    trials = [*image_trials(recipe, devices[0]), *message_trials(devices)]
    for device in devices:
        trials += [*search_trials(device), *attention_trials(device)]
    # One GPU after the other computes as the first one does, if it computes at all.
    first = dict(list(plans.items())[:1])
    for device in devices:
        trials += trunk_trials(plans if device == devices[0] else first, device)
    return trials
