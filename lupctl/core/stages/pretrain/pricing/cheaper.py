"""Changes of a recipe that need less memory on a device, as options to type."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import PnlSettings
from lupctl.core.recipes.text import build_recipe, override, recipe_tables
from lupctl.core.stages.pretrain.job import check_parts, estimate_device
from lupctl.core.system.jobs.device import Placement

# Two sizes of a smaller batch, and of a part of one, are enough to see where it goes.
MOST_EACH: Final = 2


@dataclass(frozen=True)
class Change:
    """A change that a command line can make.

    Args:
        options: to add to the command.
        memory_bytes: estimate on a device with it.
        effect: on the result and the speed.
    """

    options: str
    memory_bytes: int
    effect: str


def list_changes(recipe: PretrainRecipe, kind: str, *, processes: int, classes: int) -> list[Change]:
    """What would need less memory on a device than a recipe does, and passes its checks.

    Args:
        recipe: resolved.
        kind: of the devices, cpu or cuda.
        processes: how many share the batch.
        classes: number of labels; 0 for a method without.
    """
    now = estimate_device(recipe, kind, processes=processes, classes=classes)
    found = list[Change]()
    for candidates in (_accumulate(recipe, kind, processes), _recompute(recipe), _shard(recipe), _shrink(recipe)):
        kept = list[Change]()
        for options, keys, effect in candidates:
            changed = _change(recipe, keys, kind, processes)
            if changed is None:
                continue
            memory = estimate_device(changed, kind, processes=processes, classes=classes)
            if memory < min([now, *(one.memory_bytes for one in kept)]):
                kept.append(Change(options, memory, effect))
            if len(kept) == MOST_EACH:
                break
        found += kept
    return found


Candidate = tuple[str, dict[str, Any], str]


def _change(recipe: PretrainRecipe, keys: dict[str, Any], kind: str, processes: int) -> PretrainRecipe | None:
    """The recipe with other keys; None where it, or the devices, do not allow them."""
    tables = recipe_tables(recipe)
    for key, value in keys.items():
        tables = override(tables, key, value)
    try:
        changed = build_recipe(PretrainRecipe, tables, origin="a cheaper recipe")
        check_parts(changed, Placement(kind, processes, ""))
    except UsageError:
        return None
    return changed


def _accumulate(recipe: PretrainRecipe, kind: str, processes: int) -> Iterator[Candidate]:
    if kind == "cpu":  # which processes one batch-norm group at a time in any case
        return
    local = recipe.data.batch // processes
    for parts in range(recipe.optim.accumulate + 1, local // 2 + 1):
        if local % parts == 0:
            key = "optim.accumulate"
            yield f"--set {key}={parts}", {key: parts}, f"the same result; a device takes {local // parts} at a time"


def _recompute(recipe: PretrainRecipe) -> Iterator[Candidate]:
    if not recipe.net.checkpoint_activations:
        key = "net.checkpoint_activations"
        yield f"--set {key}=true", {key: True}, "the same result; a third more work"


def _shard(recipe: PretrainRecipe) -> Iterator[Candidate]:
    if isinstance(recipe.settings, PnlSettings) and recipe.settings.classifies and not recipe.settings.sharded:
        yield "--set pnl.sharded=true", {"pnl.sharded": True}, "the same result"


def _shrink(recipe: PretrainRecipe) -> Iterator[Candidate]:
    """Halves of the batch with the rate in proportion to it: Goyal et al. 2017, arXiv 1706.02677, section 2.1.

    DINO's own rule, 0.0005 x batch / 256, is the same (Caron et al. 2021, arXiv 2104.14294, section 3.2).
    """
    batch, times = recipe.data.batch, 2
    while batch % times == 0:
        rate = float(f"{recipe.optim.lr / times:.6g}")
        keys: dict[str, Any] = {"data.batch": batch // times, "optim.lr": rate}
        effect = f"another result: {times} times as many updates, the rate in proportion"
        yield f"--batch {batch // times} --lr {rate:g}", keys, effect
        times *= 2
