"""The memory on which this thread handles signals."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("begin", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Keeps a library from leaving a stack of its own for signals.

    OpenVINO (2026.4) sets one in the thread that compiles a network, and gives its memory back with the network: the
    next Ctrl-C or SIGTERM would then end the process by a segmentation fault.
    """
    change = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    before = _Stack()
    if change is None or change(None, ctypes.byref(before)) != 0:
        yield
        return
    try:
        yield
    finally:
        change(ctypes.byref(before), None)
