"""A block of a network as compiled code, in a process of its own that can be given up."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lupctl.core.errors import DeviceError
from lupctl.core.stages.exercise.check import Outcome, SkippedError, Trial, WrongError
from lupctl.core.stages.exercise.trunks import IMAGES, SEED, relative
from lupctl.core.system.jobs.compiling import check_compiler
from lupctl.core.system.jobs.parent import end_with_parent
from lupctl.core.training.engine.stopwatch import time_calls
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk

# Less time than that is not worth a start: the import of torch alone takes seconds.
LEAST_S: Final = 5.0
ROWS, COLUMNS = 32, 16
LIMIT: Final = 0.02
TIMED_S: Final = 0.1


def compile_trials(device: torch.device) -> list[Trial]:
    """One block of an R18: a whole network takes the compiler a minute."""
    return [Trial(f"torch.compile, a block of r18, {device}", partial(_compile, device))]


def _compile(device: torch.device, left_s: float) -> Outcome:
    """Compiles in a child, whose files are temporary and whose compilers end with it.

    Raises:
        SkippedError: there is no compiler, or no time.
        WrongError: the code gives other numbers, or the child died.
    """
    try:
        check_compiler(device.type)
    except DeviceError as error:
        raise SkippedError(error.message.partition(": ")[2]) from error
    if left_s < LEAST_S:
        raise SkippedError(f"{left_s:.0f} s were left for it")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="lupctl-exercise-", ignore_cleanup_errors=True) as folder:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=compile_block, args=(str(device), folder, sender), daemon=True)
        child.start()
        sender.close()
        try:
            if not receiver.poll(left_s):
                raise SkippedError(f"not compiled after the {left_s:.0f} s that were left for it")
            found = receiver.recv()
        except EOFError as error:
            raise WrongError(f"the process that compiles ended ({_last_line(Path(folder))})") from error
        finally:
            _end(child)
            receiver.close()
    if isinstance(found, str):
        raise WrongError(found)
    difference, plain_s, compiled_s, spent = found
    if not difference <= LIMIT:
        raise WrongError(f"compiled code gives other numbers, by {difference:.0e}")
    numbers = {"difference": difference, "times_as_fast": plain_s / compiled_s, "compile_s": spent}
    return Outcome(
        f"{difference:.0e} from the same without it",
        f"{plain_s / compiled_s:.1f} times as fast, compiled in {spent:.0f} s",
        numbers,
    )


def _end(child: BaseProcess) -> None:
    """Ends a child and the compilers that it started, which are a group of processes."""
    assert child.pid is not None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except OSError:  # it has ended, or was not yet a group of its own
        child.kill()
    child.join()
    child.close()


def compile_block(device: str, folder: str, answers: Connection) -> None:
    """In the child: sends the difference, seconds of a pass without and with, and those of compiling; or an error."""
    end_with_parent()
    os.setsid()
    # Whatever torch keeps goes there, and it starts no workers that would outlive it.
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": f"{folder}/triton", "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TMPDIR": folder,
    }  # fmt: skip
    tempfile.tempdir = folder
    with Path(folder, "stderr").open("w") as kept:
        os.dup2(kept.fileno(), sys.stderr.fileno())
    try:
        answers.send(measure_block(torch.device(device)))
    except Exception as error:  # of the compiler, whatever it is
        answers.send(f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}")
    answers.close()


def measure_block(device: torch.device) -> tuple[float, float, float, float]:
    """The difference that compiling makes, seconds of a pass without and with it, and seconds of compiling."""
    torch.manual_seed(SEED)
    block = ResNetTrunk("r18").eval().layer1[0].to(device)
    images = torch.randn(IMAGES, 64, ROWS, COLUMNS, device=device)
    with torch.no_grad():
        expected, began_at = block(images), time.perf_counter()
        compiled = torch.compile(block, dynamic=False)
        found = compiled(images).cpu()
        spent = time.perf_counter() - began_at
        plain_s, compiled_s = (
            time_calls(partial(_call, one, images), device, budget_s=TIMED_S) for one in (block, compiled)
        )
    return relative(found, expected.cpu()), plain_s, compiled_s, spent


def _call(block: Callable[[Tensor], Tensor], images: Tensor) -> None:
    block(images)


def _last_line(folder: Path) -> str:
    lines = Path(folder, "stderr").read_text(errors="replace").split("\n") if Path(folder, "stderr").is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
