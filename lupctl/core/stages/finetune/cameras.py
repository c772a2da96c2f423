"""The cameras of a training set, for a network that takes them."""

from collections.abc import Sequence

import numpy as np

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.ranking.retrieval.cameras import CameraTable
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.persons import Camera, LabelledRows
from lupctl.core.system.examples import count_things
from lupctl.core.training.loading.cameras import ImageCameras


def pick_cameras(recipe: FinetuneRecipe, train: LabelledRows) -> tuple[Camera, ...]:
    """The cameras of a network's table, in the order of its rows; none for a recipe without side information.

    Raises:
        UsageError: there is one camera, which tells nothing apart, or none.
        DataError: images without a camera, and nothing to learn from them.
    """
    if recipe.sie is None or not recipe.sie.cameras:
        return ()
    if len(train.cameras) < 2:
        found = "are all from one camera" if train.cameras else "have no cameras"
        raise UsageError(
            f"sie.cameras = true: the training images {found}, and an embedding of cameras has no meaning then",
            hint="--set sie.cameras=false" + (" --set sie.unknown=0" if recipe.sie.unknown else ""),
        )
    strange = len(np.unique(train.rows[train.camera < 0]))
    if strange and not recipe.sie.unknown:
        raise DataError(
            f"sie.cameras = true: {count_things(strange, 'training image')} of {train.num_images:,} without a camera",
            hint="--set sie.unknown=0.1 learns a row for unknown cameras, which they get too",
        )
    return train.cameras


def image_cameras(recipe: FinetuneRecipe, train: LabelledRows) -> ImageCameras | None:
    """The row of the table that each training image takes, and how many are hidden; None without a table."""
    cameras = pick_cameras(recipe, train)
    if not cameras or recipe.sie is None:
        return None
    hidden = recipe.sie.unknown
    rows = np.where(train.camera < 0, len(cameras), train.camera).astype(np.int64)
    return ImageCameras(rows, unknown=len(cameras) if hidden else None, hidden=hidden)


def build_table(recipe: FinetuneRecipe, train: LabelledRows, packs: Sequence[Pack]) -> CameraTable | None:
    """The table of cameras of the network that is trained, as evaluations take it; None if it has none."""
    cameras = pick_cameras(recipe, train)
    if not cameras or recipe.sie is None:
        return None
    datasets = tuple(pack.dataset for pack in packs)
    return CameraTable(cameras, datasets, rows=len(cameras), has_unknown=recipe.sie.unknown > 0)
