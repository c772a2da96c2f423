"""k-reciprocal re-ranking (Zhong, Zheng, Cao, Li 2017, arXiv 1701.08398).

The pool is the queries followed by the gallery. Everything is computed from the nearest neighbours and from sparse
vectors: memory grows with the pool times k1, not with its square.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import NeighbourSearch, RerankBase
from lupctl.core.ranking.metrics.ranking import Distances, chunk_ranges
from lupctl.core.ranking.metrics.vectors import BLOCK_BYTES, Scratch, UnitRows
from lupctl.core.ranking.reranking.faiss_neighbours import find_neighbours_by_faiss, pick_search
from lupctl.core.ranking.reranking.neighbours import Neighbours, find_neighbours
from lupctl.core.ranking.reranking.reciprocal import COMPARED, expanded_sets, half_neighbourhood
from lupctl.core.ranking.reranking.sparse import SparseRows, mean_rows, sparse_rows, sum_of_minima

# Rows of overlaps in float64 at once.
JACCARD_ROWS = 64


@dataclass(frozen=True)
class RerankSettings:
    """Settings of re-ranking; re-ranked scores are never shown without them.

    Args:
        k1: size of the neighbourhood, at least 1.
        k2: neighbours averaged in local query expansion, at least 1; 1 turns it off.
        weight: lambda of the paper in [0, 1], the share of the original distance.
        base: the distance that is normalised by its row's maximum: `d2`, the squared distance of unit vectors as
            published, or `d4`, its square (up to a factor the same as (1 - cos)^2), as LUPerson's tables use.
        neighbours: how the nearest images are found: `exact`, our own pass, whose bits do not depend on the threads,
            or `faiss`; None takes what `neighbour_search` picks for the devices. Scores agree to rounding.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    base: RerankBase = "d2"
    neighbours: NeighbourSearch | None = None

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.weight <= 1:
            raise ValueError(f"k1 and k2 are at least 1 and lambda is in [0, 1]: {self}")

    @property
    def num_neighbours(self) -> int:
        """Number of nearest images that are used, including the image itself."""
        return max(self.k1 + 1, self.k2)


@dataclass(frozen=True)
class Sides:
    """The features to rank, on one device.

    Args:
        queries: Q rows.
        gallery: G rows, without junk.
        pool: the same rows, queries first.
    """

    queries: UnitRows
    gallery: UnitRows
    pool: UnitRows


def reranked_distances(
    sides: Sides,
    settings: RerankSettings,
    *,
    others: Sequence[Sides] = (),
    chunk: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Distances]:
    """Distances (1 - lambda) * Jaccard + lambda * original, in the form that `rank_queries` takes.

    Each block overwrites the one before.

    Args:
        sides: queries and gallery on the device that also keeps the neighbours.
        settings: k1, k2, lambda and the base distance.
        others: the same on other devices.
        chunk: rows of the pool at a time in the search for neighbours.
        advance: called with the number of pool rows searched.

    Returns:
        One for each device, in their order.

    Raises:
        UsageError, DeviceError: faiss cannot search on these devices.
    """
    pools = [other.pool for other in others]
    search = neighbour_search(settings, [one.device for one in (sides.pool, *pools)])
    find = find_neighbours_by_faiss if search == "faiss" else find_neighbours
    neighbours = find(sides.pool, count=settings.num_neighbours, others=pools, chunk=chunk, advance=advance)
    encoding = encode_neighbours(sides.pool, neighbours, settings)
    inverted = encoding.transposed(range(len(sides.queries), len(sides.pool)))
    farthest = neighbours.least[: len(sides.queries)]

    def on(some: Sides) -> Distances:
        scratch, least = Scratch(), farthest.to(some.gallery.device)

        def distances(start: int, stop: int) -> Tensor:
            found = jaccard_distances(encoding, range(start, stop), inverted)
            jaccard = torch.from_numpy(found).to(some.gallery.device)
            if settings.weight == 0:
                return jaccard
            cosines = some.gallery.cosines(some.queries.unit(start, stop), scratch=scratch)
            original = normalised_distance(cosines, least[start:stop, None], settings)
            return original.mul_(settings.weight).add_(jaccard, alpha=1 - settings.weight)

        return distances

    return [on(some) for some in (sides, *others)]


def neighbour_search(settings: RerankSettings, devices: Sequence[torch.device]) -> NeighbourSearch:
    """The neighbour search to use on these devices; see `pick_search`."""
    return pick_search(settings.neighbours, devices, count=settings.num_neighbours)


def encode_neighbours(pool: UnitRows, neighbours: Neighbours, settings: RerankSettings) -> SparseRows:
    """The vectors V whose overlap is the Jaccard similarity, after local query expansion: (N, N) sparse.

    Each row weighs the members of its expanded reciprocal set by exp(-D) and sums to 1. A row without a single
    reciprocal neighbour is zero; that takes more than k1 copies of one image.
    """
    row, member = expanded_sets(neighbours.index, settings.k1)
    cosine = member_cosines(pool, neighbours, row, member)
    weight = torch.exp(-normalised_distance(cosine, neighbours.least[row], settings)).cpu().numpy()
    rows = row.cpu().numpy()
    total = np.bincount(rows, weight, len(pool))
    encoding = sparse_rows(rows, member.cpu().numpy(), weight / total[rows], shape=(len(pool), len(pool)))
    if settings.k2 == 1:
        return encoding
    return mean_rows(encoding, neighbours.index[:, : settings.k2].cpu().numpy())


def member_cosines(pool: UnitRows, neighbours: Neighbours, row: Tensor, member: Tensor) -> Tensor:
    """Cosines of (P) pairs of pool rows: looked up among the neighbours, computed if they are not there."""
    cosine = torch.empty(len(row), device=row.device)
    width = neighbours.index.shape[1]
    lookups = max(1, BLOCK_BYTES // (8 * width))
    missing = []
    for start in range(0, len(row), lookups):
        rows, members = row[start : start + lookups], member[start : start + lookups]
        is_there = neighbours.index[rows] == members[:, None]
        cosine[start : start + lookups] = neighbours.cosine[rows, is_there.int().argmax(dim=1)]
        missing.append(torch.nonzero(~is_there.any(dim=1))[:, 0] + start)
    products = max(1, BLOCK_BYTES // (8 * pool.dimension))
    absent = torch.cat(missing)
    for start, stop in chunk_ranges(len(absent), products):
        some = absent[start:stop]
        cosine[some] = torch.linalg.vecdot(pool.unit_at(row[some]), pool.unit_at(member[some]))
    return cosine


def normalised_distance(cosine: Tensor, least: Tensor, settings: RerankSettings) -> Tensor:
    """The base distance divided by that of the farthest image of the pool; 0 if all images are the same.

    Args:
        cosine: any shape, overwritten.
        least: cosine of the farthest image, of a shape that broadcasts.
        settings: names the base distance.
    """
    distance, farthest = _squared_distance(cosine), _squared_distance(least.clone())
    if settings.base == "d4":
        distance, farthest = distance.square_(), farthest.square_()
    return distance.div_(torch.where(farthest > 0, farthest, torch.inf))


def jaccard_distances(encoding: SparseRows, rows: range, inverted: SparseRows) -> NDArray[np.float32]:
    """1 - S / (2 - S) with S the sum of minima of two encodings: (rows, G) float32.

    Rows of an encoding sum to 1, so that 2 - S is the sum of maxima.
    """
    result = np.empty((len(rows), inverted.width), np.float32)
    for start, stop in chunk_ranges(len(rows), JACCARD_ROWS):
        overlap = sum_of_minima(encoding, np.arange(rows[start], rows[stop - 1] + 1), inverted)
        result[start:stop] = 1 - overlap / (2 - overlap)
    return result


def _squared_distance(cosine: Tensor) -> Tensor:
    """2 - 2 cos in place, never below 0."""
    return cosine.mul_(-2).add_(2).clamp_(min=0)


def estimate_encoding_bytes(num_pool: int, settings: RerankSettings) -> int:
    """Memory of re-ranking besides distances, an upper estimate for all but the densest pools.

    Neighbours, two encodings of three times k1 entries per row, and one block of comparisons with its results.
    """
    width = min(settings.num_neighbours, num_pool)
    kept = num_pool * (width * 12 + 4 + 2 * 8 * 3 * settings.k1 * min(settings.k2, 3))
    return kept + 4 * min(COMPARED, num_pool * width**2 * (half_neighbourhood(settings.k1) + 1))
