"""Cosines between rows of a feature matrix, without a normalised copy of it."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.metrics.stacked import StackedRows, stack_rows

# Memory for rows of the other operand gathered, converted or moved to the device at once; the fastest of 8 to 128 MiB.
BLOCK_BYTES = 16 << 20
# Matrix products of fewer rows use other kernels, whose rounding depends on the position: two equal images would
# then differ in the last bit, and results would depend on the chunk. Smaller operands are padded with zero rows.
MIN_ROWS = 64
# oneDNN cuts the rows of the left operand into equal parts; a number like 2 * 17 * 31 of them takes a third more time.
EVEN_ROWS = 8
# Outside these bounds the square of a float32 under- or overflows, and the norm is computed again in float64.
SAFE_NORM = (1e-15, 1e15)
# A float32 row with a larger norm has no usable product with a unit vector.
MAX_NORM = 1e37
# With a smaller norm its unit vector is not one: the inverse of the norm is infinite, or the values have lost bits.
MIN_NORM = 1e-37


class Scratch:
    """Reusable memory for blocks of similar size that are needed one after another.

    The system provides fresh memory of this size page by page, which takes as long as sorting its contents.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def take(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """An uninitialised float32 tensor; it shares its memory with those taken before."""
        count = math.prod(shape)
        if self._memory.numel() < count or self._memory.device != device:
            self._memory = torch.empty(count, device=device)
        return self._memory[:count].view(*shape)


class UnitRows:
    """Some rows of a feature matrix, as unit vectors.

    The matrix is never written to and never copied as a whole: norms are stored separately and applied to products.
    A row of zeros has cosine 0 with everything.

    Args:
        features: (N, D) float32 or float16, an array, a tensor on any device, or several of them.
        rows: (n) int64, which rows and in which order.
        device: where products are computed.

    Attributes:
        norm: (n) float64 on the CPU; NaN or infinite for a row that has no direction.
    """

    def __init__(
        self, features: NDArray[Any] | Tensor | StackedRows, rows: NDArray[np.int64], *, device: torch.device
    ) -> None:
        self.device = device
        self._features = stack_rows(features)
        self._rows = np.ascontiguousarray(rows, dtype=np.int64)
        self._block = max(MIN_ROWS, BLOCK_BYTES // (4 * max(1, self._features.shape[1])))
        norms = [row_norm(self.raw(start, stop)) for start, stop in self.blocks()]
        norm = torch.cat(norms) if norms else torch.zeros(0, dtype=torch.float64, device=device)
        self._inverse = torch.where(norm > 0, 1 / norm, 0.0).float()
        self.norm: NDArray[np.float64] = norm.cpu().numpy()

    def __len__(self) -> int:
        return len(self._rows)

    def part(self, start: int, stop: int) -> "UnitRows":
        """The rows from `start` to `stop` alone, without computing their norms again."""
        return self._some(slice(start, stop), slice(start, stop))

    def select(self, indices: NDArray[np.int64]) -> "UnitRows":
        """The rows at (K) positions, in that order, without computing their norms again."""
        return self._some(indices, torch.from_numpy(indices).to(self.device))

    def _some(self, here: slice | NDArray[np.int64], there: slice | Tensor) -> "UnitRows":
        """Some of the rows: which, for arrays and for tensors on the device."""
        part = copy.copy(self)
        part._rows, part._inverse, part.norm = self._rows[here], self._inverse[there], self.norm[here]
        return part

    @property
    def dimension(self) -> int:
        """D, the length of a row."""
        return self._features.shape[1]

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges of nearly equal size that cover all rows, or those from `first` to `last`."""
        last = len(self) if last is None else last
        count = -(-(last - first) // self._block)
        edges = np.linspace(first, last, count + 1).astype(int).tolist()
        yield from itertools.pairwise(edges)

    def raw(self, start: int, stop: int) -> Tensor:
        """Rows as they are, (stop - start, D) float32 on the device; a view of the matrix where possible."""
        return self._features.take(self._rows[start:stop]).to(self.device, torch.float32)

    def unit(self, start: int, stop: int) -> Tensor:
        """A copy of the rows, divided by their norms, (stop - start, D) float32 on the device."""
        return self.raw(start, stop) * self._inverse[start:stop, None]

    def unit_at(self, indices: Tensor) -> Tensor:
        """The unit vectors at (K) positions, (K, D) float32 on the device."""
        taken = self._features.take(self._rows[indices.cpu().numpy()])
        return taken.to(self.device, torch.float32) * self._inverse[indices, None]

    def cosines(
        self, units: Tensor, *, first: int = 0, last: int | None = None, scratch: Scratch | None = None
    ) -> Tensor:
        """Cosines of (B, D) unit vectors with the rows from `first` to `last`, by default all.

        On a CPU the result for two vectors does not depend on what else is in the batch.

        Returns:
            (B, last - first) float32 on the device; in `scratch` if given.
        """
        last = len(self) if last is None else last
        result = (scratch or Scratch()).take((len(units), last - first), self.device)
        padded = _pad_rows(units, even=EVEN_ROWS)
        with exact_float32(self.device):
            for start, stop in self.blocks(first, last):
                products = inner_products(padded, _pad_rows(self.raw(start, stop)))[: len(units), : stop - start]
                torch.mul(products, self._inverse[start:stop], out=result[:, start - first : stop - first])
        return result


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of rows, (B, D) and (n, D) to (B, n).

    On a CPU, oneDNN computes them: each is summed in the order of D, whatever its position and the number of threads.
    MKL, which `torch.mm` calls there, changes the order from four threads on, and is half as fast on AMD processors.
    """
    if left.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return left @ right.T
    # Under `torch.nn.functional.linear` for tensors of oneDNN's own, into which and out of which copies would be made.
    products: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return products


def row_norm(rows: Tensor) -> Tensor:
    """Euclidean norm of each row: (n, D) float32 to (n) float64; infinite where it is too large for float32."""
    norm = torch.linalg.vector_norm(rows, dim=1).double()
    unsafe = torch.nonzero(~((norm > SAFE_NORM[0]) & (norm < SAFE_NORM[1])))[:, 0]
    if len(unsafe):
        # float32 squares leave their range long before the rows do; float64 takes a hundred times as long.
        norm[unsafe] = torch.linalg.vector_norm(rows[unsafe].double(), dim=1)
    return torch.where(norm > MAX_NORM, torch.inf, norm)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Matrix products in float32 throughout, whatever precision training has chosen for speed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _pad_rows(rows: Tensor, *, even: int = 1) -> Tensor:
    """With rows of zeros at the end: at least `MIN_ROWS`, and a multiple of `even`."""
    missing = max(MIN_ROWS - len(rows), -len(rows) % even)
    return rows if missing <= 0 else torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
