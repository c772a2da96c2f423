"""A process that has everything imported and runs commands in forked children, each with limits of its own.

A command that starts from nothing spends seconds on imports; here it costs tens of milliseconds. The process reads
one line of JSON for each command on stdin (a `Request`) and writes one on stdout (an `Outcome`).
"""

import atexit
import ctypes
import faulthandler
import functools
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = ("cv2", "faiss", "h5py", "lmdb", "onnx", "rich.table", "safetensors.torch", "scipy.io", "torchvision.models")
# A child may use this much more than the loaded process, which maps gigabytes of libraries without using them.
MEMORY_BYTES = 4 << 30
WALL_S, CPU_S = 60.0, 45
# For children of the command to end after it.
GRACE_S = 10.0
SUBREAPER, NEW_MOUNTS, PRIVATE = 36, 0x20000, 1 << 18


@dataclass(frozen=True)
class Request:
    """A command to run.

    Args:
        folder: has `work`, where the command runs, `home` and `tmp`; its output goes to `out` and `err`.
        words: the command line after `lupctl`.
        variables: of the environment.
        file_bytes: the largest file that the command may write, as by a quota.
        disk_bytes: the size of the disk that is mounted at `work/disk`, if there is to be one.
    """

    folder: str
    words: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    file_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Args:
        code: its exit code, or minus the number of the signal that ended it.
        seconds: until it ended.
        cpu_s: of it and its children.
        peak_bytes: the most memory that it, or one of its children, had in use, the shared libraries included.
        timed_out: it was killed after `WALL_S`.
        left: processes that it left behind, as their command lines.
    """

    code: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    timed_out: bool
    left: list[str]


def load() -> None:
    """Imports what a command may need."""
    for name in PACKAGES:
        importlib.import_module(name)
    import lupctl

    for module in pkgutil.walk_packages(lupctl.__path__, "lupctl."):
        if module.name != "lupctl.__main__":
            importlib.import_module(module.name)
    import cv2
    import torch
    import typer.main

    from lupctl.cli.app import app
    from lupctl.core.system.fetch.transfer import Patience

    # Other tests wait for servers.
    Patience.__init__.__defaults__ = (2, 0.01, 0.05, 3.0, 20.0)
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)  # reading the options of all commands takes as long as a short one
    # A child would wait for ever for threads of its parent.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # orphans of a command become our children
    gc.collect()
    gc.freeze()


def can_mount() -> bool:
    """Whether this process may mount a small disk."""
    child = os.fork()
    if not child:
        with suppress(OSError), tempfile.TemporaryDirectory() as folder:
            _mount(Path(folder), 1 << 16)
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _mount(folder: Path, num_bytes: int) -> None:
    """Mounts a disk that no other process sees, and that is gone with this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(NEW_MOUNTS),
        libc.mount(b"none", b"/", None, PRIVATE | 0x4000, None),
        libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={num_bytes}".encode()),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run(request: Request) -> Outcome:
    """Runs a command and waits for it and its children."""
    started_at = time.monotonic()
    child = os.fork()
    if not child:
        _become(request)
    watched = os.pidfd_open(child)
    try:
        timed_out = not select.select([watched], [], [], WALL_S)[0]
    finally:
        os.close(watched)
    if timed_out:
        _kill(child)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - started_at
    left = _wait_for_rest(child)
    return Outcome(
        code=os.waitstatus_to_exitcode(status),
        seconds=round(seconds, 3),
        cpu_s=round(used.ru_utime + used.ru_stime, 3),
        peak_bytes=used.ru_maxrss << 10,
        timed_out=timed_out,
        left=left,
    )


def _become(request: Request) -> None:
    """Runs the command in place of this process."""
    code = 1
    try:
        os.setsid()
        folder = Path(request.folder)
        os.chdir(folder / "work")
        for number, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        os.environ |= {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "LUPCTL_HOME": "", "COLUMNS": "200"}
        os.environ |= request.variables
        tempfile.tempdir = None
        _limit(request, folder)
        sys.argv = ["lupctl", *request.words]
        faulthandler.enable()
        from lupctl.cli.app import main

        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # As an interpreter does at its end, except that it frees no memory.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _limit(request: Request, folder: Path) -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.file_bytes,) * 2)
    if request.disk_bytes is not None:
        _mount(folder / "work" / "disk", request.disk_bytes)


def _members(session: int) -> dict[int, str]:
    """The processes of a session that are not zombies, and our own orphans, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError, ValueError):
                state, parent, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z" and (int(its) == session or int(parent) == os.getpid()):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
    return found


def _kill(session: int) -> None:
    for process in _members(session):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _wait_for_rest(session: int) -> list[str]:
    """What a command left behind, killed after a while."""
    end = time.monotonic() + GRACE_S
    while (left := _members(session)) and time.monotonic() < end:
        time.sleep(0.02)
    _kill(session)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return list(left.values())


def serve() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load()
    print(json.dumps({"mounts": can_mount()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(run(Request(**json.loads(line))))), file=answers, flush=True)


if __name__ == "__main__":
    serve()
