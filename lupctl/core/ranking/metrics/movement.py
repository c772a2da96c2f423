"""How little each image's feature moved from one network to another."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import MovementDistance


def movement_scores(
    before: NDArray[np.floating], after: NDArray[np.floating], distance: MovementDistance
) -> NDArray[np.float64]:
    """Scores of B images from their features of two networks; larger is better, the feature moved less.

    The data filter of TransReID-SSL (Luo et al. 2021, arXiv 2111.12084) compares the features of a pre-trained network
    and of the same one fine-tuned, and keeps the images whose features are most alike; its exact distance is not
    published. The cosine orders images as the distance of unit vectors does, and not as that of the features does.

    >>> before, after = np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([[2.0, 0.0], [4.0, -3.0]])
    >>> movement_scores(before, after, "cosine").tolist()
    [1.0, 0.0]
    >>> [movement_scores(before, after, distance).round(3).tolist() for distance in ("l2", "raw-l2")]
    [[-0.0, -1.414], [-1.0, -7.071]]

    Args:
        before, after: (B, D) of the same images, not normalised.
        distance: cosine gives the cosine, 1 for a feature that has kept its direction; l2 minus the distance of the
            two unit vectors, 0 for such a feature; raw-l2 minus the distance of the two features.

    Returns:
        (B) float64; NaN where a feature has no direction, which is of length 0 or not finite.
    """
    first, second = before.astype(np.float64), after.astype(np.float64)
    match distance:
        case "raw-l2":
            scores: NDArray[np.float64] = -np.linalg.norm(first - second, axis=1)
        case "l2":
            scores = -np.linalg.norm(_unit(first) - _unit(second), axis=1)
        case "cosine":
            scores = (_unit(first) * _unit(second)).sum(axis=1).clip(-1.0, 1.0)
        case _:
            assert_never(distance)
    return scores


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]
