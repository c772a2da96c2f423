"""Decoding workers that die or fail: the error that the loop gets, and a shutdown that leaves none of them behind."""

import signal
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from lupctl.core.errors import DataError, LupError
from lupctl.core.training.loading.slots import WorkerSlots, forget

# If a connection was cut because its worker died, the worker is gone within this time.
DYING_S = 5.0
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class BatchSource(Protocol[T_co]):
    """Items are whole batches, in memory that a worker can pass on."""

    slots: WorkerSlots

    def __getitem__(self, item: int) -> T_co:
        """One batch."""

    def describe(self, image: int) -> str:
        """Location of an image that a worker recorded, for messages."""


class ErrorsAsItems(Dataset[T | LupError]):
    """A data set that returns an error the user can act on as an item.

    torch raises a worker's error again as a RuntimeError if it cannot rebuild it from one string.

    Args:
        dataset: any.
    """

    def __init__(self, dataset: BatchSource[T]) -> None:
        self._dataset = dataset

    def __getitem__(self, item: int) -> T | LupError:
        try:
            return self._dataset[item]
        except LupError as error:
            return error


def raise_errors(items: Iterator[T | LupError], dataset: BatchSource[T]) -> Generator[T, None, None]:
    """Batches, with errors raised; torch's iterator ends together with this one.

    That iterator stops its workers when it is deleted, but not when the garbage collector finds it in a cycle, such as
    an exception with the frames it passed through: the queue that would notify the workers is gone by then. And an
    exception that is still referenced keeps it from being deleted at all. So the workers are stopped here, in torch's
    own way.
    """
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                raise _died(items, dataset) from error
            except (OSError, EOFError) as error:
                # A worker that dies between announcing a batch and sending its memory leaves a cut connection.
                if not _lost_worker(items):
                    raise
                raise _died(items, dataset) from error
            if isinstance(item, LupError):
                raise item
            yield item
    finally:
        if isinstance(items, _MultiProcessingDataLoaderIter):
            items._shutdown_workers()
        forget(dataset.slots)


@contextmanager
def child_handler_kept() -> Iterator[None]:
    """Restores the handler of SIGCHLD, the signal that a child has ended, after the block.

    Where there is no such signal, as on Windows, torch sets no handler either.
    """
    if not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def _lost_worker(items: Iterator[T | LupError]) -> bool:
    """Whether a worker has died; the connection may be cut before the system reports it."""
    if not isinstance(items, _MultiProcessingDataLoaderIter):
        return False
    end = time.monotonic() + DYING_S
    while time.monotonic() < end:
        if not all(worker.is_alive() for worker in items._workers):
            return True
        time.sleep(0.01)
    return False


def _died(items: Iterator[T | LupError], dataset: BatchSource[T]) -> DataError:
    """The error for dead workers, with the image that the first of them recorded last."""
    assert isinstance(items, _MultiProcessingDataLoaderIter), "only such an iterator has workers"
    number, worker = next((number, worker) for number, worker in enumerate(items._workers) if not worker.is_alive())
    image = dataset.slots.last_image(number)
    last_image = "" if image is None else f"; its last image was {dataset.describe(image)}"
    code = worker.exitcode
    reason = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    return DataError(
        f"a decoding worker died ({reason}){last_image}",
        hint="often there was too little memory: use fewer workers, as in --workers 1; "
        "lupctl data verify PACK --deep finds damaged images",
    )


def close_if_open(batches: "weakref.ref[Generator[T, None, None]]") -> None:
    """Stops a loader's workers, if the loader still exists."""
    left = batches()
    if left is not None:
        left.close()
