"""Saving a run's state while the loop continues."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from lupctl.core.training.engine.runs import RunFolder


class StateWriter:
    """Writes `resume.pt` from a thread; the loop only waits for the copy to host memory.

    Only one state is being written at a time: the next save waits for the one before.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: Future[None] | None = None

    def save(self, state: Mapping[str, Any]) -> None:
        """Copies a state and starts to write it.

        Raises:
            DataError: the previous state could not be written; the one on disk before it is still there.
        """
        self.join()
        self._pending = self._thread.submit(self._folder.save_state, copy_to_host(state))

    def poll(self) -> None:
        """Raises an error of the thread, without waiting for it.

        Raises:
            DataError: the disk is full or refuses the write.
        """
        if self._pending is not None and self._pending.done():
            self.join()

    def join(self) -> None:
        """Waits until the last state is on the disk.

        Raises:
            DataError: the disk is full or refuses the write.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the thread; drops its error, because another one is being raised or `join` has raised it."""
        self._thread.shutdown(wait=True)


def copy_to_host(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors are in separate memory on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copy_to_host(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_host(inner) for inner in value)
    return value
