"""Where faiss computes: on a GPU that it can use, or on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import torch

from lupctl.core.errors import DeviceError

# The most lists that faiss's GPU kernels probe, and the most results they give.
MOST_ON_GPU = 2048


def gpu_of(device: torch.device) -> int | None:
    """The number of a GPU that faiss can use; None for the CPU, or if faiss is built for the CPU only."""
    number = device.index or 0
    return number if device.type == "cuda" and faiss.get_num_gpus() > number else None


def move_index(index: Any, number: int) -> Any:
    """Copies an index to a GPU's memory.

    Raises:
        DeviceError: the GPU has too little memory for it.
    """
    with room_on(number, index.ntotal):
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)


@contextmanager
def room_on(number: int, count: int) -> Iterator[None]:
    """Reports in one line that a GPU has too little memory for an index of `count` images.

    Raises:
        DeviceError: instead of faiss's exception.
    """
    try:
        yield
    except RuntimeError as error:
        raise DeviceError(
            f"cuda:{number}: not enough memory for the index of {count:,} images ({str(error).splitlines()[0]})",
            hint="--device cpu",
        ) from error
