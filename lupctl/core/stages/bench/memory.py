"""Memory that a network takes, in RAM or on a GPU."""

import ctypes
import sys
from pathlib import Path
from typing import Final, Protocol

import torch

from lupctl.core.system.jobs.resident import KIB, peak_resident_bytes

# Writing 5 there makes the peak what is resident now (proc_pid_clear_refs(5)).
CLEAR: Final = Path("/proc/self/clear_refs")
STATUS: Final = Path("/proc/self/status")
SYSTEM: Final = Path("/proc/meminfo")
GROUP: Final = Path("/sys/fs/cgroup")


class Memory(Protocol):
    """Memory of one kind."""

    def start(self) -> int:
        """Forgets the peak, gives back what is not used, and returns the bytes in use."""

    def above(self, before: int) -> int | None:
        """The most bytes in use since the start above so many; None where that is not known."""

    def free(self) -> int:
        """Bytes that are free; 0 where that is not known."""


class HostMemory:
    """What this process has in RAM; known on Linux."""

    def start(self) -> int:
        """Forgets the peak, gives back what is not used, and returns the resident bytes."""
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
        self._can_forget = _write(CLEAR, "5")
        return _read_line(STATUS, "VmRSS:")

    def above(self, before: int) -> int | None:
        """The most resident bytes since the start above so many."""
        return max(0, peak_resident_bytes() - before) if self._can_forget else None

    def free(self) -> int:
        """Bytes that the system would give, or the container allows."""
        free = _read_line(SYSTEM, "MemAvailable:")
        try:
            most, used = (int((GROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        except (OSError, ValueError):  # there is no container, or no limit
            return free
        return min(free, max(0, most - used))


class GpuMemory:
    """What PyTorch has allocated on a GPU.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> int:
        """Forgets the peak, gives back what is not used, and returns the allocated bytes."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device)

    def above(self, before: int) -> int | None:
        """The most allocated bytes since the start above so many."""
        return torch.cuda.max_memory_allocated(self._device) - before

    def free(self) -> int:
        """Bytes that are free on the GPU."""
        return torch.cuda.mem_get_info(self._device)[0]


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text, encoding="ascii")
    except OSError:  # another system, or a kernel without it
        return False
    return True


def _read_line(path: Path, name: str) -> int:
    """Bytes of a line in KiB of one of the kernel's files; 0 where there is none."""
    if path.is_file():
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * KIB
    return 0
