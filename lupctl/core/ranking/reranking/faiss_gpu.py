"""Where faiss computes: on a GPU that it sees, or on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import torch

from lupctl.core.errors import DeviceError

# faiss's kernels take no more lists to probe, and give no more results.
MOST_ON_GPU = 2048


def gpu_of(device: torch.device) -> int | None:
    """The number of a GPU that faiss sees, too; None for the CPU and where faiss is built for the CPU alone."""
    number = device.index or 0
    return number if device.type == "cuda" and faiss.get_num_gpus() > number else None


def move_index(index: Any, number: int) -> Any:
    """An index in a GPU's memory.

    Raises:
        DeviceError: the GPU has no room for it.
    """
    with room_on(number, index.ntotal):
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)


@contextmanager
def room_on(number: int, count: int) -> Iterator[None]:
    """Says in one line what faiss complains of when a GPU has no room for an index of so many images.

    Raises:
        DeviceError: in place of faiss's exception.
    """
    try:
        yield
    except RuntimeError as error:
        raise DeviceError(
            f"cuda:{number}: no room for the index of {count:,} images ({str(error).splitlines()[0]})",
            hint="--device cpu",
        ) from error
