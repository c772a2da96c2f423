"""Report on the machine: versions, devices, decoder, cores, disk and locks."""

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import faiss
import numpy as np
import torch

from lupctl.core.system.disk.lock import check_locks
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.device import pick_placement
from lupctl.core.system.jobs.precision import measure_cpu
from lupctl.core.system.threads.cores import usable_cores

LOW_DISK_BYTES = 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Args:
        what: its name.
        found: what is there.
        used: what lupctl uses it for.
        is_well: whether lupctl can work with it.
    """

    what: str
    found: str
    used: str
    is_well: bool = True


def examine(home: Path) -> list[Finding]:
    """Examine everything that lupctl depends on.

    Args:
        home: the workspace; it need not exist.
    """
    return [
        Finding("lupctl", version("lupctl"), f"Python {platform.python_version()} on {platform.machine()}"),
        Finding("torch", torch.__version__, f"{count_things(torch.get_num_threads(), 'thread')} on the CPU"),
        *_devices(),
        _bf16(),
        Finding(
            "faiss",
            f"{faiss.__version__}, {faiss.get_num_gpus()} GPUs visible to it",
            "search --index ivf, and neighbours for re-ranking on these GPUs; torch computes all other distances",
        ),
        _jpeg_decoder(),
        _cores(),
        _disk(home),
        _locking(home),
    ]


def _devices() -> list[Finding]:
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        found.append(Finding(f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB", kind))
    if not found:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        found.append(Finding("cuda", f"no visible device ({built})", "nothing"))
    return [*found, Finding("device", pick_placement(gpus=None, processes=None).line, "training, dump, eval")]


def _bf16() -> Finding:
    """How fast the processor is in bfloat16, for those who train on it."""
    speed = measure_cpu()
    used = "training (auto), dump --precision bf16" if speed.is_fast else "nothing; float32 is faster"
    return Finding("bf16, a CPU", speed.describe(), used)


def _jpeg_decoder() -> Finding:
    image = np.arange(64 * 32 * 3, dtype=np.uint8).reshape(64, 32, 3)
    works = cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR) is not None
    lines = [line.split(":", 1)[1].strip() for line in cv2.getBuildInformation().splitlines() if "JPEG:" in line]
    found = f"OpenCV {cv2.__version__}, {lines[0] if lines else 'unknown JPEG library'}"
    return Finding("JPEG decoder", found, "packing, training, dump" if works else "broken", works)


def _cores() -> Finding:
    return Finding("cores", str(usable_cores()), "decoding workers: all cores with a GPU, half of them without")


def _disk(home: Path) -> Finding:
    place = _existing(home)
    free = shutil.disk_usage(place).free
    note = "packs and runs" if free > LOW_DISK_BYTES else "packs and runs; low on space"
    return Finding("disk", f"{free / 2**30:.1f} GiB free at {place.resolve()}", note)


def _locking(home: Path) -> Finding:
    """Whether the workspace's file system supports locks, which keep two runs out of one folder."""
    place = _existing(home)
    try:
        check_locks(place)
    except OSError as error:
        return Finding("file locks", f"do not work at {place.resolve()} ({error.strerror})", "runs", is_well=False)
    return Finding("file locks", f"work at {place.resolve()}", "one process per run; packs are read without locks")


def _existing(path: Path) -> Path:
    """The path itself if it is a folder, else the nearest existing folder above it."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
