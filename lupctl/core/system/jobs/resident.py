"""Memory that this process has in RAM."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

STATUS: Final = Path("/proc/self/status")
KIB: Final = 1024


def peak_resident_bytes() -> int:
    """The most bytes that this process has had in RAM at once, with the libraries and files that are mapped into it.

    Linux counts that for each program; elsewhere it may include what the process was before it became this one. 0 on a
    system where Python cannot ask, such as Windows.
    """
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    if find_spec("resource") is None:
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * KIB
