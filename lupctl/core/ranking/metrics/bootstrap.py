"""Confidence intervals of means over queries."""

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
SEED = 0
# Indices are drawn in blocks of this many entries, 32 MiB.
BLOCK_ENTRIES = 1 << 22


def bootstrap_interval(
    values: NDArray[np.float64], *, draws: int = DRAWS, seed: int = SEED, level: float = 0.95
) -> NDArray[np.float64]:
    """Percentile interval of the mean of each column, rows drawn with replacement (Efron 1979).

    All columns share the draws. Queries are drawn, not persons: on a data set with few persons the scores are less
    certain than the interval suggests.

    Args:
        values: (Q, M), one row per query, Q at least 1.
        draws: resamples.
        seed: of the resamples.
        level: probability mass inside.

    Returns:
        (M, 2) float64, lower and upper end.

    >>> bootstrap_interval(np.array([[1.0], [1.0]])).tolist()
    [[1.0, 1.0]]
    """
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // len(values))
    means = []
    for start in range(0, draws, block):
        picked = generator.integers(0, len(values), size=(min(block, draws - start), len(values)))
        means.append(np.stack([column[picked].mean(axis=1) for column in values.T], axis=1))
    tail = (1 - level) / 2
    interval: NDArray[np.float64] = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0).T
    return interval
