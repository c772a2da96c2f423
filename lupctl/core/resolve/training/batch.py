"""The batch that `--batch` asks for, checked against what the recipe cuts it into."""

from collections.abc import Callable, Sequence
from typing import Any

from lupctl.core.errors import UsageError


def take_batch(stage: str, recipe: str, overrides: Sequence[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The named options as keys of the stage's recipe: fine-tuning has `data.persons` for `data.batch`.

    Args:
        stage: pretrain or finetune.
        recipe: shipped name or TOML file.
        overrides: `key=value` texts.
        flags: by dotted key; `data.batch` is checked and may be None.

    Raises:
        UsageError: the recipe cannot cut that batch up; names the nearest one that it can.
    """
    from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
    from lupctl.core.recipes.shipped import join_tables

    batch, others = flags["data.batch"], {key: value for key, value in flags.items() if key != "data.batch"}
    if batch is None:
        return others
    tables, _ = join_tables(stage, recipe, overrides=overrides, flags=others)
    default = PretrainRecipe() if stage == "pretrain" else FinetuneRecipe()
    groups = _number(tables, "bn_groups", default.bn_groups)
    if isinstance(default, PretrainRecipe):
        check_batch(batch, groups=groups)
        return flags
    images = _number(tables.get("data"), "images", default.data.images)
    return {**others, "data.persons": count_persons(batch, images=images, groups=groups)}


def _number(table: Any, key: str, default: int) -> int:
    """A number of a table that is not checked yet; the default where it is not one, which the recipe will refuse."""
    found = table.get(key) if isinstance(table, dict) else None
    return found if type(found) is int and found > 0 else default


def check_batch(batch: int, *, groups: int) -> None:
    """Refuses a batch of pre-training that its batch-norm groups do not divide.

    Args:
        batch: images per step over all devices.
        groups: of the recipe.

    Raises:
        UsageError: names the nearest batch that fits.
    """

    def fits(number: int) -> bool:
        return number % groups == 0 and number >= 2 * groups

    if not fits(batch):
        raise UsageError(
            f"--batch {batch}: the recipe's bn_groups = {groups} needs {groups} equal parts of two images or more",
            hint=f"--batch {nearest_fitting(batch, fits)}",
        )


def count_persons(batch: int, *, images: int, groups: int) -> int:
    """The persons of a batch of fine-tuning, which is that many persons with the same number of images each.

    >>> count_persons(64, images=4, groups=1)
    16

    Args:
        batch: images per step over all devices.
        images: of each person.
        groups: batch-norm groups of the recipe.

    Raises:
        UsageError: names the nearest batch that fits.
    """

    def fits(number: int) -> bool:
        return number % images == 0 and number >= 2 * images and number % groups == 0 and number >= 2 * groups

    if not fits(batch):
        grouped = f" and bn_groups = {groups} equal parts" if groups > 1 else ""
        raise UsageError(
            f"--batch {batch}: a batch is two persons or more with data.images = {images} images each{grouped}",
            hint=f"--batch {nearest_fitting(batch, fits)}",
        )
    return batch // images


def nearest_fitting(number: int, fits: Callable[[int], bool]) -> int:
    """The number nearest to another that fits, the smaller one of two; there has to be one.

    >>> nearest_fitting(30, lambda number: number % 8 == 0)
    32
    """
    distance = 0
    while True:
        for near in (number - distance, number + distance):
            if near > 0 and fits(near):
                return near
        distance += 1
