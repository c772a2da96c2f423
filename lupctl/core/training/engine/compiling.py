"""What torch.compile needs of a machine."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from lupctl.core.errors import DeviceError


def check_compiler(kind: str) -> None:
    """Checks that torch.compile can build what it writes: C++ for a CPU, and for a GPU what starts Triton's kernels.

    Args:
        kind: of the devices, cpu or cuda.

    Raises:
        DeviceError: there is no compiler, or Python came without the headers that it needs.
    """
    own = os.environ.get("CXX" if kind == "cpu" else "CC", "")
    names = [own] if own else ["clang++" if sys.platform == "darwin" else "g++"] if kind == "cpu" else ["gcc", "clang"]
    hint = "install a compiler (Debian: apt install g++ python3-dev), or --set net.compile=false"
    if not any(map(shutil.which, names)):
        raise DeviceError(f"net.compile: torch.compile needs a compiler, and {' or '.join(names)} is not here", hint)
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise DeviceError(f"net.compile: torch.compile needs Python's headers, and {header} is not here", hint)
