"""Several feature matrices, read as one."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class StackedRows:
    """Matrices of the same width, stacked row-wise; none is copied or written to.

    From a part that is mapped from a file, only the rows that are taken are read.

    Args:
        parts: at least one of (n, D) float32 or float16, arrays or tensors on one device.
    """

    def __init__(self, parts: Sequence[NDArray[Any] | Tensor]) -> None:
        self._parts = [_as_tensor(part) for part in parts]
        widths = {part.shape[1] for part in self._parts}
        if len(widths) != 1:
            raise ValueError(f"matrices of {sorted(widths)} columns cannot be stacked")
        self._end = np.cumsum([len(part) for part in self._parts])

    @property
    def shape(self) -> tuple[int, int]:
        """N, D."""
        return int(self._end[-1]), int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The matrices."""
        return tuple(self._parts)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The given rows in their order: (n, D); float32 if they are from several parts, a view where possible.

        Args:
            rows: (n) from 0 to N - 1.
        """
        if not len(rows):
            return self._parts[0][:0]
        touched = np.unique(self._part_of(rows))
        if len(touched) == 1:
            part = int(touched[0])
            return _take(self._parts[part], rows - self._begin(part))
        taken = torch.empty(len(rows), self.shape[1], device=self._parts[0].device)
        which = self._part_of(rows)
        for part in touched.tolist():
            here = np.flatnonzero(which == part)
            taken[torch.from_numpy(here)] = _take(self._parts[part], rows[here] - self._begin(part)).float()
        return taken

    def _part_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._end, rows, side="right")

    def _begin(self, part: int) -> int:
        return int(self._end[part]) - len(self._parts[part])


def stack_rows(features: NDArray[Any] | Tensor | StackedRows) -> StackedRows:
    """A matrix as a stack of one."""
    return features if isinstance(features, StackedRows) else StackedRows([features])


def _take(part: Tensor, rows: NDArray[np.int64]) -> Tensor:
    if rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return part[int(rows[0]) : int(rows[-1]) + 1]
    return part[torch.from_numpy(np.ascontiguousarray(rows)).to(part.device)]


def _as_tensor(features: NDArray[Any] | Tensor) -> Tensor:
    """The same memory as a tensor; it is only read."""
    if isinstance(features, Tensor):
        return features.detach()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ", category=UserWarning)
        return torch.from_numpy(features)
