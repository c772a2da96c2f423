"""Sections of fine-tuning without labels, on clusters of images."""

from typing import Annotated, Any

from pydantic import Field

from lupctl.core.choices import MemoryUpdate
from lupctl.core.recipes.sections import MisfitError, Positive, Section

# Keys of `data` about labelled images, with the only values that mean nothing.
OF_LABELS = {"subset": "", "repeat": 1}


class ClusterSettings(Section):
    """Clusters instead of persons, found anew before each epoch. The defaults are those of TransReID-SSL.

    Args:
        eps: the largest Jaccard distance of neighbours.
        least: an image with so many neighbours, itself included, makes a cluster.
        k1, k2: of the k-reciprocal encodings whose distance it is.
        steps: of an epoch.
        momentum: of the memory, which has one direction for each cluster: the share that stays in an update.
        temperature: by which products of features and memory are divided.
        update: mean moves a cluster by each of its images in a batch in turn, hard by the least similar one alone.
    """

    eps: Annotated[float, Field(gt=0, lt=1)] = 0.6
    least: Annotated[int, Field(ge=2)] = 4
    k1: Positive = 30
    k2: Positive = 6
    steps: Positive = 200
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.2
    temperature: Annotated[float, Field(gt=0)] = 0.05
    update: MemoryUpdate = "hard"


def check_clusters(tables: dict[str, Any]) -> dict[str, Any]:
    """A fine-tuning recipe's tables with the section of its labels, and without that of other labels.

    Raises:
        MisfitError: a section or key has no meaning for these labels.
    """
    own, other = ("clusters", "losses") if tables.get("labels") == "clusters" else ("losses", "clusters")
    if other == "clusters" and other in tables:
        raise MisfitError("clusters: a section of labels = 'clusters'", hint="--labels clusters")
    wrong = [other] if other in tables else []
    data = tables.get("data")
    if own == "clusters" and isinstance(data, dict):
        wrong += [f"data.{key}" for key, nothing in OF_LABELS.items() if data.get(key, nothing) != nothing]
    if wrong:
        raise MisfitError(
            f"{wrong[0]}: says what to do with labels, and labels = 'clusters' looks at none",
            hint="--recipe small-usl, or one of your own without it"
            if other in wrong
            else f"leave out --{wrong[0].removeprefix('data.')}, or the key in a recipe of your own",
        )
    return {**tables, own: tables.get(own, {})}
