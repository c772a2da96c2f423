"""Starting the processes of a training job through PyTorch's elastic launcher, and what their ends mean."""

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch.distributed import DistBackendError

from lupctl.core.errors import (
    DeviceError,
    InterruptedRunError,
    LupError,
    StoppedError,
    out_of_memory,
    read_error,
    write_error,
)
from lupctl.core.system.jobs.messages import joined_job
from lupctl.core.system.jobs.outer import LOOPBACK, Rendezvous, find_outer_job
from lupctl.core.system.jobs.parent import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
SETTLE_S = 10.0
LAUNCHER_LOGS = (
    "torch.multiprocessing.spawn",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.agent.server.api",
)
AGAIN = "type the same command again to continue from the last saved state"


def launch(
    entry: Callable[[T], R],
    job: T,
    *,
    processes: int,
    kind: str,
    rendezvous: Rendezvous | None = None,
    timeout: timedelta | None = None,
) -> R | None:
    """Runs `entry(job)` in several processes of one job.

    With one process, or inside a job that torchrun or srun started, it is called right here.

    Args:
        entry: a module-level function; every process calls it with the same job. What it gives must be picklable.
        job: picklable.
        processes: on this machine.
        kind: cuda or cpu; picks nccl or gloo.
        rendezvous: of several machines, each of which runs this same call.
        timeout: how long a process waits for a message from another; None for a few minutes.

    Returns:
        what process 0 of the job gave, or this one where it was called right here; None where process 0 ran on
        another machine.

    Raises:
        LupError: the first one that any process met.
        StoppedError: the job was asked to stop and has saved its state, or a process was killed.
    """
    if rendezvous is None and (processes == 1 or find_outer_job(os.environ) is not None):
        return _run_here(entry, job, kind, timeout)
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    nodes = 1 if rendezvous is None else rendezvous.nodes
    with tempfile.TemporaryDirectory(prefix="lupctl-job-") as folder:
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=processes,
            run_id=f"lupctl-{os.getpid()}" if rendezvous is None else rendezvous.job,
            rdzv_backend="c10d" if rendezvous is None or rendezvous.node_rank is None else "static",
            rdzv_endpoint=f"{LOOPBACK}:0" if rendezvous is None else rendezvous.endpoint,
            rdzv_configs={} if rendezvous is None or rendezvous.node_rank is None else {"rank": rendezvous.node_rank},
            local_addr=LOOPBACK if rendezvous is None else rendezvous.local_address(),
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # by itself it leaves empty folders in the temporary one
        )
        try:
            with _quiet_launcher():
                given = elastic_launch(config, _run_child)(entry, job, kind, timeout, folder)
        except SignalException as error:
            stopped = _first_error(Path(folder))
            if stopped is not None:
                raise stopped from error
            asked = InterruptedRunError if error.sigval == signal.SIGINT else StoppedError
            raise asked("stopped on request", hint="type the same command again") from error
        except ChildFailedError as error:
            met = _first_error(Path(folder))
            if met is not None:
                raise met from error
            number, failure = error.get_first_failure()
            # Killed from outside, often for want of memory, it can go on; anything else is a bug with a traceback.
            died = StoppedError if failure.exitcode < 0 else LupError
            raise died(
                f"process {number} of {processes * nodes} died (exit code {failure.exitcode}); all were stopped",
                hint=AGAIN,
            ) from error
        except RendezvousError as error:
            place = config.rdzv_endpoint
            raise DeviceError(
                f"--rdzv-endpoint {place}: the {nodes} machines did not meet ({str(error).partition(chr(10))[0]})",
                hint="the same command on every machine, HOST being one of them and PORT open between them",
            ) from error
    return cast(R | None, given.get(0))


def _run_here(entry: Callable[[T], R], job: T, kind: str, timeout: timedelta | None) -> R:
    """The one process, or this one of a job that torchrun or srun started."""
    with joined_job(kind, timeout=timeout):
        try:
            return entry(job)
        except RuntimeError as error:
            if not _is_of_another(error):
                raise
            raise StoppedError(
                f"another process of this job ended ({str(error).partition(chr(10))[0]})", hint=AGAIN
            ) from error


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Keeps PyTorch from telling in twenty lines of log what is one error here; the tracebacks of bugs stay."""

    def is_news(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return record.levelno > logging.WARNING and (kind is None or kind.__name__ != "ProcessExitedException")

    loggers = [logging.getLogger(name) for name in LAUNCHER_LOGS]
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_news)


def _run_child(entry: Callable[[T], R], job: T, kind: str, timeout: timedelta | None, folder: str) -> R:
    """One process of a job; an error that a user can act on is left in a file for the parent."""
    end_with_parent()  # PyTorch's own way is a SIGINT, on which a process waits for others that are gone
    try:
        with joined_job(kind, timeout=timeout):
            return entry(job)
    except (LupError, torch.OutOfMemoryError) as met:
        error = met if isinstance(met, LupError) else out_of_memory(met)
        note = Path(folder) / f"{time.monotonic_ns():020d}-{os.environ['RANK']}.json"
        note.write_text(write_error(error), encoding="utf-8")
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if _is_of_another(error):
            # Another process is gone, and this one only felt it. Waiting lets the launcher see that one first, and end
            # this one with it; its error is the one to report.
            time.sleep(SETTLE_S)
        raise


def _is_of_another(error: RuntimeError) -> bool:
    """Whether a message failed, which is how a process feels that another one is gone."""
    return isinstance(error, DistBackendError) or "gloo" in str(error)


def _first_error(folder: Path) -> LupError | None:
    for note in sorted(folder.glob("*.json")):
        return read_error(note.read_text(encoding="utf-8"))
    return None
