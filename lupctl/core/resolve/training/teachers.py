"""The network that fine-tuning learns from besides labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import FinetuneRecipe


def name_of(teacher: str) -> str:
    """A teacher's part of a run's name: that of its run or file.

    >>> name_of("runs/big/checkpoint.safetensors"), name_of("big"), name_of("luperson-mgn-r50-msmt17")
    ('big', 'big', 'luperson-mgn-r50-msmt17')
    """
    path = Path(teacher.removesuffix(".safetensors"))
    return path.resolve().parent.name if path.name == "checkpoint" else path.name


def find_teacher(space: Workspace, recipe: "FinetuneRecipe") -> Path | None:
    """The checkpoint of the recipe's teacher; None without one.

    Raises:
        DataError: there is none of that name.
    """
    return None if recipe.distil is None else find_checkpoint(space, recipe.distil.teacher)
