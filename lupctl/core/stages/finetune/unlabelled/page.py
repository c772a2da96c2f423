"""The page of a run on clusters, with its images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.errors import CorruptImageError
from lupctl.core.ranking.reports.build.clusters import ClusteredImages, ClusteredRun, build_cluster_page
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.setup import Setup
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.loading.images import PackImages


def build_page(
    setup: Setup,
    recipe: FinetuneRecipe,
    run: Path,
    *,
    labels: Mapping[int, NDArray[np.int64]],
    sureness: NDArray[np.float64],
) -> str:
    """The page of a run.

    Args:
        setup: its images.
        recipe: of the run.
        run: its folder, for its metrics.
        labels: (N) by epoch; the last ones are the newest.
        sureness: (C) mean silhouettes of the newest clusters.
    """
    assert recipe.clusters is not None
    images = PackImages(setup.packs, setup.train.rows)
    queries = sum(int((pack.samples.role == ROLE_CODES["query"]).sum()) for pack in setup.tests)
    return build_cluster_page(
        ClusteredRun(
            name=run.name,
            datasets=[pack.dataset for pack in setup.packs],
            queries=queries,
            epochs=recipe.schedule.epochs,
            eps=recipe.clusters.eps,
            rows=read_metrics(run),
        ),
        ClusteredImages(
            name=images.name,
            camera=setup.train.camera,
            cameras=setup.train.cameras,
            person=whom(setup),
            read=lambda image: read_or_none(images, image),
        ),
        labels=labels,
        sureness=sureness,
    )


def whom(setup: Setup) -> NDArray[np.int64]:
    """(N) whom the packs say that the training images show, negative for nobody known: for showing only."""
    return np.concatenate([pack.samples.person for pack in setup.packs])[setup.train.rows]


def read_or_none(images: PackImages, image: int) -> bytes | None:
    """An encoded image; None if it is damaged."""
    try:
        return images.read(image)
    except CorruptImageError:
        return None
