"""Children that end with their parent, however it ends."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

PR_SET_PDEATHSIG = 1


def ends_with_this_process() -> Callable[[], None] | None:
    """What another program's process does before it starts, so that it ends with this one; for `subprocess`.

    On Linux the kernel sends it SIGKILL; elsewhere there is no such call, and None.
    """
    if sys.platform != "linux":
        return None
    parent, ask = os.getpid(), ctypes.CDLL(None).prctl  # looked up here: a forked process of many threads must not

    def follow() -> None:
        ask(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return follow


def end_with_parent() -> None:
    """Makes this process, started by `multiprocessing`, end as soon as its parent has, even by SIGKILL.

    Nothing is cleaned up: whatever a child writes has to survive a kill anyway. On Linux the kernel ends it, even in
    the middle of a system call; the kernel watches the thread that started this process, so that one has to live as
    long as the parent. Elsewhere a thread waits for the end of a pipe whose other end only the parent has, and
    siblings that were forked after this one, each of which ends the same way.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only children have a parent to end with"
    if sys.platform == "linux":
        is_watched = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
        if os.getppid() != parent.pid:  # it ended before the kernel was told
            os._exit(1)
        if is_watched:
            return
    sentinel = parent.sentinel

    def follow() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
