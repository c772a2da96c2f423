"""The drawn numbers of one view: arrays where they are drawn and sent, tensors where pixels are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ViewDraws:
    """The drawn numbers of one view for N samples, as a worker draws and sends them.

    Args:
        box: (N, 4) float32 top, left, height, width of the crop in source pixels.
        shift: (N, 2) int32 rows and columns by which the window is offset from the resized image (padding).
        flip: (N) bool.
        grey: (N) bool.
        radius: (N) float32, 0 for no blur.
        solarise: (N) bool.
        jitter: (N, 4) float32 brightness, contrast, saturation factors and hue shift.
        jitter_order: (N, 4) int64; entry s names the operation done in slot s, -1 for none.
        erase: (N, 4) int32 top, left, height, width; height 0 where nothing is erased.
        noise: (N, 2) int64, 32-bit words that seed the noise in that rectangle; zeros where none is drawn.
    """

    box: NDArray[np.float32]
    shift: NDArray[np.int32]
    flip: NDArray[np.bool_]
    grey: NDArray[np.bool_]
    radius: NDArray[np.float32]
    solarise: NDArray[np.bool_]
    jitter: NDArray[np.float32]
    jitter_order: NDArray[np.int64]
    erase: NDArray[np.int32]
    noise: NDArray[np.int64]

    def part(self, begin: int, end: int) -> "ViewDraws":
        """The draws of samples `begin` to `end - 1`, which share the memory of all."""
        some = slice(begin, end)
        return ViewDraws(
            box=self.box[some],
            shift=self.shift[some],
            flip=self.flip[some],
            grey=self.grey[some],
            radius=self.radius[some],
            solarise=self.solarise[some],
            jitter=self.jitter[some],
            jitter_order=self.jitter_order[some],
            erase=self.erase[some],
            noise=self.noise[some],
        )

    def tensors(self) -> "DrawTensors":
        """The same draws as tensors, sharing memory."""
        return DrawTensors(
            box=torch.from_numpy(self.box),
            shift=torch.from_numpy(self.shift),
            flip=torch.from_numpy(self.flip),
            grey=torch.from_numpy(self.grey),
            radius=torch.from_numpy(self.radius),
            solarise=torch.from_numpy(self.solarise),
            jitter=torch.from_numpy(self.jitter),
            jitter_order=torch.from_numpy(self.jitter_order),
            erase=torch.from_numpy(self.erase),
            noise=torch.from_numpy(self.noise),
        )


@dataclass(frozen=True, kw_only=True)
class DrawTensors:
    """The numbers of `ViewDraws` as tensors, as `make_view` takes them.

    What decides which images an operation takes (grey, radius, solarise, jitter_order) stays on the host: a step that
    read it from an accelerator would wait for everything that is still to be done there.
    """

    box: Tensor
    shift: Tensor
    flip: Tensor
    grey: Tensor
    radius: Tensor
    solarise: Tensor
    jitter: Tensor
    jitter_order: Tensor
    erase: Tensor
    noise: Tensor

    def arrays(self) -> ViewDraws:
        """The same draws as arrays, sharing memory; they must be on the CPU."""
        return ViewDraws(
            box=self.box.numpy(),
            shift=self.shift.numpy(),
            flip=self.flip.numpy(),
            grey=self.grey.numpy(),
            radius=self.radius.numpy(),
            solarise=self.solarise.numpy(),
            jitter=self.jitter.numpy(),
            jitter_order=self.jitter_order.numpy(),
            erase=self.erase.numpy(),
            noise=self.noise.numpy(),
        )

    def part(self, begin: int, end: int) -> "DrawTensors":
        """The draws of samples `begin` to `end - 1`, which share the memory of all."""
        return self._each(lambda drawn: drawn[begin:end])

    def to(self, device: torch.device) -> "DrawTensors":
        """The same draws on a device, but for those of the host; copies overlap with computation from pinned memory."""
        return replace(
            self,
            box=self.box.to(device, non_blocking=True),
            shift=self.shift.to(device, non_blocking=True),
            flip=self.flip.to(device, non_blocking=True),
            jitter=self.jitter.to(device, non_blocking=True),
            erase=self.erase.to(device, non_blocking=True),
            noise=self.noise.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "DrawTensors":
        """A page-locked copy."""
        return self._each(Tensor.pin_memory)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps their memory from being reused before the stream has reached this point; the host's is not."""
        for drawn in vars(self).values():
            if drawn.device.type != "cpu":
                drawn.record_stream(stream)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "DrawTensors":
        return DrawTensors(
            box=change(self.box),
            shift=change(self.shift),
            flip=change(self.flip),
            grey=change(self.grey),
            radius=change(self.radius),
            solarise=change(self.solarise),
            jitter=change(self.jitter),
            jitter_order=change(self.jitter_order),
            erase=change(self.erase),
            noise=change(self.noise),
        )


def join_draws(draws: Sequence[DrawTensors]) -> DrawTensors:
    """The draws of several views, one view after the other."""
    return DrawTensors(
        box=torch.cat([drawn.box for drawn in draws]),
        shift=torch.cat([drawn.shift for drawn in draws]),
        flip=torch.cat([drawn.flip for drawn in draws]),
        grey=torch.cat([drawn.grey for drawn in draws]),
        radius=torch.cat([drawn.radius for drawn in draws]),
        solarise=torch.cat([drawn.solarise for drawn in draws]),
        jitter=torch.cat([drawn.jitter for drawn in draws]),
        jitter_order=torch.cat([drawn.jitter_order for drawn in draws]),
        erase=torch.cat([drawn.erase for drawn in draws]),
        noise=torch.cat([drawn.noise for drawn in draws]),
    )
