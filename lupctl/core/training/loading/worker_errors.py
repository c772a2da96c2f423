"""Decoding workers that die or meet an error: what the loop is told, and that none of them is left behind."""

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

# A worker whose connection was cut is gone within so many seconds, if that is why.
DYING_S = 5.0
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class BatchSource(Protocol[T_co]):
    """Items are whole batches, in memory that a worker can hand over."""

    slots: WorkerSlots

    def __getitem__(self, item: int) -> T_co:
        """One batch."""

    def describe(self, image: int) -> str:
        """What an image that a worker left word of is called."""


class ErrorsAsItems(Dataset[T | LupError]):
    """A data set that hands an error the user can act on over as an item.

    torch raises what a worker met again as a RuntimeError of its own when it cannot build it from one string.

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
    """Batches, with errors raised; torch's iterator ends with this one.

    That iterator stops its workers when it is deleted, but not when the garbage collector finds it in a cycle, as an
    exception and the frames it went through are one: the queue that would tell the workers is gone by then. And an
    exception that is still held keeps it from being deleted at all. So they are stopped here, in torch's own way.
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
                # A worker that dies between announcing a batch and handing its memory over leaves a cut connection.
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
    """Undoes what is done in the block to the handler of the signal that a child has ended.

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
    """Whether a worker is no more; the connection may be cut before the system says so."""
    if not isinstance(items, _MultiProcessingDataLoaderIter):
        return False
    end = time.monotonic() + DYING_S
    while time.monotonic() < end:
        if not all(worker.is_alive() for worker in items._workers):
            return True
        time.sleep(0.01)
    return False


def _died(items: Iterator[T | LupError], dataset: BatchSource[T]) -> DataError:
    """The error for workers that are no more, with the image that the first of them left word of last."""
    assert isinstance(items, _MultiProcessingDataLoaderIter), "only such an iterator has workers"
    number, worker = next((number, worker) for number, worker in enumerate(items._workers) if not worker.is_alive())
    image = dataset.slots.last_image(number)
    told = "" if image is None else f"; its last image was {dataset.describe(image)}"
    code = worker.exitcode
    reason = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    return DataError(
        f"a decoding worker died ({reason}){told}",
        hint="often the memory was not enough: fewer workers, as in --workers 1; "
        "lupctl data verify PACK --deep finds damaged images",
    )


def close_if_open(batches: "weakref.ref[Generator[T, None, None]]") -> None:
    """Ends a loader's workers, if the loader still lives."""
    left = batches()
    if left is not None:
        left.close()
