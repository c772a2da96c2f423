"""The camera of each training image, as a row of the network's camera table, and which cameras a step hides."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.training.views.draws import SampleDraws

# Branches 1 to 6 are those of the views; see `SampleDraws.branch`.
_HIDE = 8


@dataclass(frozen=True)
class ImageCameras:
    """The cameras of a data set's images, as a network takes them.

    Args:
        rows: (N) int64, the row of each image's camera in the network's table.
        unknown: the row that stands for an unknown camera; None if the network has none.
        hidden: share of the images whose camera is hidden in a step; 0 if there is no row for them.
    """

    rows: NDArray[np.int64]
    unknown: int | None = None
    hidden: float = 0.0

    def draw(self, images: NDArray[np.int64], keys: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
        """(B) rows for one step.

        Args:
            images: (B) images of the data set.
            keys: (B) the keys of their draws.
            seed, epoch: with the key, everything that a draw depends on.
        """
        rows = self.rows[images]
        if self.unknown is None or not self.hidden:
            return rows
        return hide_cameras(rows, keys, share=self.hidden, unknown=self.unknown, seed=seed, epoch=epoch)


def hide_cameras(
    rows: NDArray[np.int64], keys: NDArray[np.int64], *, share: float, unknown: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The rows, with that of the unknown camera in place of a share of them.

    Each image draws for itself, so that neither the other images of the step nor workers, processes or restarts matter.

    Args:
        rows: (B) rows of the network's camera table.
        keys: (B) the images' keys, as for their other draws.
        share: probability for an image.
        unknown: the row of the unknown camera.
        seed, epoch: with the key, everything that a draw depends on.
    """
    drawn = SampleDraws(keys, seed=seed, epoch=epoch, view=0).branch(_HIDE).uniform(1)[:, 0]
    return np.where(drawn < share, unknown, rows)
