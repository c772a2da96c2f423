"""How many cores there are to work on."""

import os


def usable_cores() -> int:
    """Cores that this process may use: all of the machine's, or what a scheduler or a container leaves it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
