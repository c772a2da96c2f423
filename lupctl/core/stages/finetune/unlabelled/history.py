"""Clusters of a few epochs of a run, kept to show how they formed."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.clustering.tracing import spread

# Epochs that are shown: 24 bytes an image, whatever the length of a run.
EPOCHS: Final = 6


class History:
    """The labels of all images at no more than six epochs: the first, the last, and some between.

    Args:
        epochs: of the run.
        kept: what `state` gave when the run stopped; empty for a new run.
    """

    def __init__(self, epochs: int, kept: Mapping[int, torch.Tensor]) -> None:
        self._wanted = frozenset(spread(np.arange(epochs), EPOCHS).tolist())
        self._labels: dict[int, NDArray[np.int32]] = {epoch: label.numpy() for epoch, label in kept.items()}

    def add(self, epoch: int, label: NDArray[np.int64]) -> None:
        """Keeps the labels (N) of an epoch if it is one of those that are shown."""
        if epoch in self._wanted:
            self._labels[epoch] = label.astype(np.int32)

    def labels(self) -> dict[int, NDArray[np.int64]]:
        """(N) labels by epoch, in order."""
        return {epoch: self._labels[epoch].astype(np.int64) for epoch in sorted(self._labels)}

    def state(self) -> dict[int, torch.Tensor]:
        """What a run needs to continue."""
        return {epoch: torch.from_numpy(label) for epoch, label in self._labels.items()}
