"""Networks as compiled code: what that needs of a machine, and passes of one size."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from lupctl.core.errors import DeviceError


def check_compiler(kind: str, *, asked: str = "net.compile", instead: str = "--set net.compile=false") -> None:
    """Checks that torch.compile can build what it writes: C++ for a CPU, and for a GPU what starts Triton's kernels.

    Args:
        kind: of the devices, cpu or cuda.
        asked: the option or key that wants it.
        instead: how to do without.

    Raises:
        DeviceError: there is no compiler, or Python came without the headers that it needs.
    """
    own = os.environ.get("CXX" if kind == "cpu" else "CC", "")
    names = [own] if own else ["clang++" if sys.platform == "darwin" else "g++"] if kind == "cpu" else ["gcc", "clang"]
    hint = f"install a compiler (Debian: apt install g++ python3-dev), or {instead}"
    if not any(map(shutil.which, names)):
        raise DeviceError(f"{asked}: torch.compile needs a compiler, and {' or '.join(names)} is not here", hint)
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise DeviceError(f"{asked}: torch.compile needs Python's headers, and {header} is not here", hint)


class CompiledPasses:
    """A function of images, as compiled code for passes of one size; others run it as it is.

    So it is compiled once, whatever the last pass of a set has left. Several threads may call it: the first one
    compiles, and the others wait.

    Args:
        plain: takes images and, for some networks, rows of cameras.
        size: images of a pass.
    """

    def __init__(self, plain: Callable[[Tensor, Tensor | None], Tensor], size: int) -> None:
        self.plain, self.size = plain, size
        self._compiled = torch.compile(plain, dynamic=False)
        self._lock, self._is_ready = Lock(), False

    def __call__(self, images: Tensor, cameras: Tensor | None) -> Tensor:
        """What `plain` gives, but for its rounding."""
        if len(images) != self.size:
            return self.plain(images, cameras)
        if self._is_ready:
            return self._compiled(images, cameras)
        with self._lock:
            found = self._compiled(images, cameras)
            self._is_ready = True
        return found
