"""Processes that hold a lock file until the test ends."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from lupctl.core.system.disk.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def lock_holders() -> Iterator[Callable[[Path], None]]:
    """A function that starts a process which holds a lock file; all of them are ended."""
    started: list[subprocess.Popen[str]] = []

    def hold(lock: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

    try:
        yield hold
    finally:
        for process in started:
            process.kill()
            process.communicate()
