"""Re-ranking from the definition of Zhong et al. 2017, with sets and loops, and features to try it on."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.rerank import RerankSettings, Sides, reranked_distances

CPU = torch.device("cpu")


def slow_distances(features: NDArray[np.floating], num_queries: int, chosen: RerankSettings) -> NDArray[np.float64]:
    """(Q, G) distances, everything dense and in float64."""
    distance = _base_distances(features, chosen)
    jaccard = slow_jaccard(features, chosen)
    mixed = (1 - chosen.weight) * jaccard + chosen.weight * distance
    return mixed[:num_queries, num_queries:]


def slow_jaccard(features: NDArray[np.floating], chosen: RerankSettings) -> NDArray[np.float64]:
    """(N, N) Jaccard distances of all pairs."""
    distance = _base_distances(features, chosen)
    count = len(distance)
    order = [sorted(range(count), key=lambda j: (row[j], j)) for row in distance.tolist()]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    vectors = np.zeros((count, count))
    for i in range(count):
        near = reciprocal(i, chosen.k1)
        expanded = set(near)
        for j in near:
            half = reciprocal(j, round(chosen.k1 / 2))
            if len(half & near) > 2 / 3 * len(half):
                expanded |= half
        total = sum(math.exp(-distance[i, m]) for m in expanded)
        for j in expanded:
            vectors[i, j] = math.exp(-distance[i, j]) / total
    if chosen.k2 != 1:
        vectors = np.array([vectors[order[i][: chosen.k2]].mean(axis=0) for i in range(count)])
    shared = np.array([[np.minimum(one, other).sum() for other in vectors] for one in vectors])
    return 1 - shared / (2 - shared)


def _base_distances(features: NDArray[np.floating], chosen: RerankSettings) -> NDArray[np.float64]:
    """(N, N), each row divided by its largest."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # Sums of products in a fixed order, so that copies of an image have exactly the same distances.
    base = np.maximum(2 - 2 * (unit[:, None] * unit[None]).sum(axis=2), 0)
    if chosen.base == "d4":
        base = (base / 2) ** 2
    distance: NDArray[np.float64] = base / base.max(axis=1, keepdims=True)
    return distance


def fast_distances(
    features: NDArray[np.floating], num_queries: int, chosen: RerankSettings, *, chunk: int | None = None
) -> NDArray[np.float32]:
    rows = np.arange(len(features))
    queries = UnitRows(features, rows[:num_queries], device=CPU)
    gallery = UnitRows(features, rows[num_queries:], device=CPU)
    pool = UnitRows(features, rows, device=CPU)
    distances = reranked_distances(Sides(queries, gallery, pool), chosen, chunk=chunk)[0]
    step = chunk or num_queries
    parts = [distances(start, min(start + step, num_queries)).clone() for start in range(0, num_queries, step)]
    return torch.cat(parts).numpy()


def clustered(seed: int, count: int, *, persons: int = 7, dimension: int = 12, copies: int = 0) -> NDArray[np.float32]:
    """Features around a few centres, the last `copies` rows being copies of earlier ones, in mixed order."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((persons, dimension))
    features = centres[rng.integers(0, persons, count)] + 0.6 * rng.standard_normal((count, dimension))
    if copies:
        features[-copies:] = features[rng.integers(0, count - copies, copies)]
    return features[rng.permutation(count)].astype(np.float32)
