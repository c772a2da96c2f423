"""Smaller recipes whose steps do the same work for each image, so that a short measurement can tell of a long one."""

import math

from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.text import build_recipe, override, recipe_tables
from lupctl.core.stages.pretrain.job import check_parts
from lupctl.core.system.jobs.device import Placement


def list_shares(recipe: PretrainRecipe, kind: str, *, processes: int, first: int = 1) -> list[int]:
    """Numbers by which a batch can be divided, ascending.

    Args:
        recipe: of the whole batch.
        kind: of the devices that measure, cpu or cuda.
        processes: how many they are.
        first: divides all of them.
    """
    divisors = (number for number in range(first, recipe.data.batch + 1, first) if recipe.data.batch % number == 0)
    return [number for number in divisors if fits(recipe, number, kind, processes=processes)]


def fits(recipe: PretrainRecipe, divisor: int, kind: str, *, processes: int) -> bool:
    """Whether some devices can run a step of this part of the batch."""
    try:
        check_parts(cut_recipe(recipe, divisor), Placement(kind, processes, ""))
    except UsageError:
        return False
    return True


def cut_recipe(recipe: PretrainRecipe, divisor: int) -> PretrainRecipe:
    """A recipe with a part of the batch, in batch-norm groups of the same size where there is more than one.

    Args:
        recipe: of the whole batch.
        divisor: of that batch.

    Raises:
        UsageError: there is no such recipe: a group would be cut into unequal parts, or into single images.
    """
    groups = recipe.bn_groups
    if groups % divisor and divisor % groups:
        raise UsageError(f"1 / {divisor} of {groups} batch-norm groups", hint="--set bn_groups=1")
    groups = max(groups // divisor, 1)
    # With batch norm a part of a share is made of whole groups.
    accumulate = math.gcd(recipe.optim.accumulate, groups) if recipe.has_batch_norm else recipe.optim.accumulate
    tables = recipe_tables(recipe)
    for key, value in (
        ("data.batch", recipe.data.batch // divisor),
        ("bn_groups", groups),
        ("optim.accumulate", accumulate),
    ):
        tables = override(tables, key, value)
    return build_recipe(PretrainRecipe, tables, origin=f"1 / {divisor} of the batch")
