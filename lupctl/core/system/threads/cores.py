"""The number of cores to work on."""

import os


def usable_cores() -> int:
    """Cores that this process may use: all of the machine's, or those that a scheduler or a container allows."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
