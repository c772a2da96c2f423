"""TensorRT: the command that builds an engine of an ONNX file, and the engine itself where NVIDIA's trtexec is."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupctl.core.errors import DataError
from lupctl.core.formats.weights.onnx import CAMERAS
from lupctl.core.formats.weights.runtimes.images import find_image_input
from lupctl.core.formats.weights.runtimes.session import Session
from lupctl.core.system.disk.atomic import disk_errors_named
from lupctl.core.system.jobs.parent import ends_with_this_process
from lupctl.core.system.jobs.stopping import stop_on_request
from lupctl.core.system.progress.lines import Progress

TRTEXEC: Final = "trtexec"
ENGINE_SUFFIX: Final = ".engine"
# Images of a pass: the fewest that an engine takes, those it is fastest for, and the most.
PROFILE: Final = {"min": 1, "opt": 8, "max": 64}
# How trtexec begins lines that say what is wrong, and how many of the last ones are shown.
WRONG: Final = "[E]"
SHOWN: Final = 3
# Time between two looks at whether it has ended or somebody wants to stop.
WAIT_S: Final = 0.05


@dataclass(frozen=True)
class Engine:
    """What an export to TensorRT made besides the ONNX file.

    Args:
        engine: the file; None where trtexec is not here.
        command: that makes it.
    """

    engine: Path | None
    command: tuple[str, ...]

    def line(self) -> str:
        """What a person reads."""
        if self.engine is not None:
            return f"engine: {self.engine}"
        return (
            f"no engine was built, {TRTEXEC} is not here; on the machine that will run it: {shlex.join(self.command)}"
        )


def write_command(onnx: Path, engine: Path, flags: Sequence[str], *, tool: str = TRTEXEC) -> tuple[str, ...]:
    """The command that builds an engine.

    Types of numbers are those of the graph: TensorRT 11 has no other way, and 10 takes them with --stronglyTyped.

    >>> " ".join(write_command(Path("a.onnx"), Path("a.engine"), []))
    'trtexec --onnx=a.onnx --saveEngine=a.engine --stronglyTyped --skipInference'
    """
    return (tool, f"--onnx={onnx}", f"--saveEngine={engine}", "--stronglyTyped", *flags, "--skipInference")


def describe_shapes(session: Session, path: Path, size: tuple[int, int]) -> list[str]:
    """The flags that say how many images an engine takes; none for a network whose axes are all fixed.

    Args:
        session: of the ONNX file.
        path: of it, for errors.
        size: height and width of the images, for a network that takes any.
    """
    images = find_image_input(session, path, others=(CAMERAS,))
    if None not in (images.batch, images.height, images.width):
        return []
    sides = [*size, 3] if images.layout == "NHWC" else [3, *size]
    flags = []
    for name, count in PROFILE.items():
        number = images.batch or count
        shapes = {one.name: [number] for one in session.inputs} | {images.name: [number, *sides]}
        text = ",".join(f"{port}:{'x'.join(map(str, shape))}" for port, shape in shapes.items())
        flags.append(f"--{name}Shapes={text}")
    return flags


def find_trtexec() -> str | None:
    """NVIDIA's tool, where it is on the PATH."""
    return shutil.which(TRTEXEC)


def build_engine(tool: str, onnx: Path, engine: Path, flags: Sequence[str], *, name: Path, progress: Progress) -> None:
    """Builds an engine with trtexec, which tries kernels on the GPU for minutes; it ends with this process.

    Args:
        tool: its path.
        onnx: the network.
        engine: the file to write, in a folder that is removed afterwards.
        flags: of the shapes.
        name: of the engine, for errors.
        progress: reports what is run.

    Raises:
        DataError: it failed, or cannot be run.
        StoppedError: somebody asked to stop; trtexec is ended.
    """
    progress.say(f"engine: built by {tool}, which takes minutes")
    log = engine.with_suffix(".log")
    command = write_command(onnx, engine, flags, tool=tool)
    with disk_errors_named(name), stop_on_request() as request, log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, with whatever it starts if it is a script
                preexec_fn=ends_with_this_process(),
            )
        except OSError as error:
            raise DataError(
                f"{tool}: cannot be run ({error.strerror})", hint="--format onnx writes the file alone"
            ) from error
        try:
            while process.poll() is None and not request.wanted:
                time.sleep(WAIT_S)
        finally:
            _end(process)
        if request.wanted:
            raise request.nothing_written(name)
    if process.returncode != 0 or not engine.is_file():
        raise _refuse(name, process.returncode, log.read_bytes().decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program that leads a group, and all that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of it
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _refuse(name: Path, code: int, text: str) -> DataError:
    """What trtexec said last, in one line."""
    lines = [line for line in (" ".join(one.split()) for one in text.splitlines()) if line]
    said = "; ".join([line for line in lines if WRONG in line][-SHOWN:] or lines[-SHOWN:])
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}" if code else "wrote no file"
    return DataError(
        f"{name}: not written; {TRTEXEC} {ended}{f' ({said})' if said else ''}",
        hint="--format onnx writes the file alone, for a closer look with trtexec",
    )
