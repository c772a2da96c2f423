"""Which images are near each other by k-reciprocal Jaccard distance, without a matrix of all pairs."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.faiss_neighbours import find_neighbours_by_faiss
from lupctl.core.ranking.reranking.neighbours import find_neighbours
from lupctl.core.ranking.reranking.rerank import (
    RerankSettings,
    encode_neighbours,
    jaccard_distances,
    neighbour_search,
)
from lupctl.core.ranking.reranking.sparse import SparseRows, sparse_rows

# Distances that are looked at before those up to eps are kept, in bytes.
BLOCK_BYTES = 32 << 20
# A pair is computed once. Images are taken in this many parts, each against itself and those after it.
PARTS = 4
Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def neighbour_graph(
    pool: UnitRows,
    settings: RerankSettings,
    *,
    eps: float,
    others: Sequence[UnitRows] = (),
    advance: Callable[[int], None] | None = None,
) -> SparseRows:
    """Jaccard distances of the pairs that are at most `eps` apart (Zhong et al. 2017, arXiv 1701.08398).

    Memory grows with the number of images and of such pairs, not with the square of the images.

    Args:
        pool: N images.
        settings: k1 and k2 of the encodings, and how neighbours are found; lambda is not used.
        eps: the largest distance that is kept, below 1.
        others: the same images on other devices; all take turns in the search.
        advance: called with the number of rows searched.

    Returns:
        (N, N), symmetric to the bit. An image is its own neighbour at distance 0.

    Raises:
        UsageError, DeviceError: faiss cannot search on these devices.
    """
    assert 0 <= eps < 1, "images without anything in common are at distance 1"
    search = neighbour_search(settings, [one.device for one in (pool, *others)])
    find = find_neighbours_by_faiss if search == "faiss" else find_neighbours
    neighbours = find(pool, count=settings.num_neighbours, others=others, advance=advance)
    encoding = encode_neighbours(pool, neighbours, settings)
    found: list[Entries] = []
    for part in np.array_split(np.arange(len(pool)), PARTS):
        if len(part):
            found += _pairs_from(encoding, part[0], part[-1] + 1, eps=eps)
    row, column, value = (np.concatenate(list(some)) for some in zip(*found, strict=True))
    own = np.arange(len(pool))
    rows = np.concatenate([row, column, own])
    columns = np.concatenate([column, row, own])
    values = np.concatenate([value, value, np.zeros(len(pool), np.float32)])
    order = np.lexsort((columns, rows))
    return sparse_rows(rows[order], columns[order], values[order], shape=(len(pool), len(pool)))


def _pairs_from(encoding: SparseRows, first: int, last: int, *, eps: float) -> list[Entries]:
    """The pairs up to `eps` of the rows from `first` to `last`, each with rows after it."""
    inverted = encoding.transposed(range(first, len(encoding)))
    size = max(1, BLOCK_BYTES // (8 * inverted.width))
    found = []
    for start in range(first, last, size):
        stop = min(start + size, last)
        block = jaccard_distances(encoding, range(start, stop), inverted)
        row, column = np.nonzero(block <= np.float32(eps))
        is_after = column + first > row + start
        row, column = row[is_after], column[is_after]
        # Encodings sum to 1 but for rounding, and copies of an image would be at a distance below 0.
        found.append((row + start, column + first, block[row, column].clip(min=0)))
    return found


def estimate_graph_bytes(num_images: int, settings: RerankSettings, *, per_image: int) -> int:
    """Memory of a graph besides what the encodings take.

    Args:
        num_images: N.
        settings: of the encodings.
        per_image: expected number of neighbours up to eps.
    """
    # Three columns of 8, 8 and 4 bytes, doubled while they are sorted, and the order itself.
    return 2 * BLOCK_BYTES + num_images * per_image * (2 * 20 + 8)
