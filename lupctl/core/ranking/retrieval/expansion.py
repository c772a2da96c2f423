"""Average query expansion and database-side augmentation: features replaced by means over their neighbours."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.neighbours import find_neighbours
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures
from lupctl.core.system.progress.lines import Progress

ROWS = 256


@dataclass(frozen=True)
class ExpansionSettings:
    """Settings of the expansion.

    Args:
        queries: nearest images averaged into a query (average query expansion, Chum et al. 2007); 0 changes none.
        gallery: the same for gallery images (database-side augmentation, Arandjelovic and Zisserman 2012).
        alpha: power of the cosine that weighs each of them (Radenovic et al. 2018, arXiv 1711.02512).
    """

    queries: int = 0
    gallery: int = 0
    alpha: float = 3.0

    def __post_init__(self) -> None:
        if self.queries < 0 or self.gallery < 0 or self.alpha < 0 or not (self.queries or self.gallery):
            raise ValueError(f"neighbours are at least 0 and not both 0, alpha at least 0: {self}")


def expand_features(
    features: JoinedFeatures, settings: ExpansionSettings, *, device: torch.device, progress: Progress
) -> JoinedFeatures:
    """Features with queries, gallery or both replaced by (1/k) * sum of cos(i, j)^alpha * f_j over the k nearest j.

    Neighbours are searched among queries and gallery without junk, including the image itself, all by the original
    features. With the same k for both, this is one round of what LUPerson's evaluation calls AQE, except that a
    negative cosine gets weight 0 instead of flipping the sign.

    Args:
        features: all images; not changed. The result is float32 in memory.
        settings: k and alpha.
        device: where neighbours are searched.
        progress: shows a bar.
    """
    queries, gallery = query_rows(features.samples), gallery_rows(features.samples)
    rows = np.concatenate([queries, gallery])
    pool = UnitRows(features.vectors, rows, device=device)
    count = max(settings.queries, settings.gallery)
    with progress.task("expansion", total=len(pool), unit="images") as task:
        found = find_neighbours(pool, count=count, advance=task.advance)
    index, weight = found.index.cpu().numpy(), found.cosine.clamp(min=0).pow(settings.alpha).cpu().numpy()
    expanded = np.empty(features.vectors.shape, np.float32)
    for start in range(0, len(features), ROWS):
        some = np.arange(start, min(start + ROWS, len(features)))
        expanded[some] = features.vectors.take(some).cpu().numpy()
    for start, stop, k in (
        (0, len(queries), settings.queries),
        (len(queries), len(rows), settings.gallery),
    ):
        for first in range(start, stop if k else start, ROWS):
            part = slice(first, min(first + ROWS, stop))
            expanded[rows[part]] = _weighted_means(features.vectors, rows[index[part, :k]], weight[part, :k])
    return replace(features, vectors=StackedRows([expanded]))


def _weighted_means(vectors: StackedRows, rows: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    near = vectors.take(rows.ravel()).cpu().numpy().astype(np.float32).reshape(*rows.shape, -1)
    means: NDArray[np.float32] = np.einsum("bk,bkd->bd", weight, near) / rows.shape[1]
    return means
