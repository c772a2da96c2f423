"""Batches that are on the device before they are needed."""

from collections.abc import Generator, Sequence
from contextlib import closing

import torch
from torch.cuda import Event

from lupctl.core.training.loading.loaders import Batch, open_loader
from lupctl.core.training.loading.worker_errors import BatchSource


def load_on_device(
    dataset: BatchSource[Batch], items: Sequence[int], *, workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Batches in order, decoded ahead by worker processes and copied ahead to the device.

    Raises:
        DataError: a pack is damaged, or a worker process died.
    """
    return on_device(open_loader(dataset, items, workers=workers, pin=device.type == "cuda"), device)


def on_device(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """The batches, each copied to the device while the one before it is processed.

    The copies run on a separate stream. One batch more than requested is taken from the loader, so its errors come one
    batch earlier. On a CPU there is nothing to copy, and the batches are passed on.

    Args:
        batches: in pinned memory; closed with the generator.
        device: where the caller computes, on the stream that is current there.
    """
    with closing(batches):
        if device.type == "cpu":
            yield from batches
            return
        copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        waiting: tuple[Batch, Event] | None = None
        for batch in batches:
            with torch.cuda.stream(copying):
                copied = batch.to(device), copying.record_event()
            if waiting is not None:
                yield _arrived(*waiting, device)
            waiting = copied
        if waiting is not None:
            yield _arrived(*waiting, device)


def _arrived(batch: Batch, copied: Event, device: torch.device) -> Batch:
    """The batch, for kernels that the caller starts from now on."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    batch.record_stream(current)  # its memory belongs to the other stream, which must not reuse it too early
    return batch
