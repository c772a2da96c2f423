"""Processing videos in this process, in several processes on this machine, or on a Ray cluster."""

import importlib.util
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from lupctl.core.errors import DataError, InterruptedRunError, StoppedError, UsageError
from lupctl.core.stages.build.job import Cutting, Outcome, VideoTask
from lupctl.core.stages.build.part import build_part
from lupctl.core.system.jobs.parent import end_with_parent
from lupctl.core.system.jobs.stopping import StopRequest, stop_on_request

Done = Callable[[Outcome], None]
AHEAD = 2  # videos queued per worker, so that none is idle
POLL_S = 0.2

_stop: Event | None = None


class _StoppedInside(Exception):  # noqa: N818, it is not an error
    """A worker was asked to stop in the middle of a video."""


def run_here(tasks: Sequence[VideoTask], cutting: Cutting, *, done: Done) -> None:
    """Process the videos one by one, in this process.

    Raises:
        StoppedError: on SIGTERM or Ctrl-C; the video in progress is started again next time.
        DataError: the disk is full.
    """
    with stop_on_request() as request:
        for position, task in enumerate(tasks):

            def check_stop(position: int = position) -> None:
                if request.wanted:
                    raise stopped_error(request, position, len(tasks))

            check_stop()
            done(build_part(task, cutting, check_stop=check_stop))


def run_local(tasks: Sequence[VideoTask], cutting: Cutting, *, workers: int, done: Done) -> None:
    """The same in several processes.

    Raises:
        StoppedError: as above.
        DataError: the disk is full, or a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # decoders and HDF5 do not survive a fork
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(stop,))
    finished = 0
    with stop_on_request() as request, pool:
        waiting: set[Future[Outcome]] = set()
        left = iter(tasks)
        try:
            while True:
                for task in _take(left, workers * AHEAD - len(waiting)):
                    waiting.add(pool.submit(_work, task, cutting))
                if not waiting:
                    return
                ready, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in ready:
                    done(future.result())
                    finished += 1
                if request.wanted:
                    raise stopped_error(request, finished, len(tasks))
        except BrokenProcessPool as error:
            if request.wanted:  # whoever asked us to stop has asked the workers, too
                raise stopped_error(request, finished, len(tasks)) from error
            raise DataError(
                "a worker process was killed, perhaps for its memory; finished videos are kept",
                hint="type the same command again, with fewer --workers",
            ) from error
        finally:
            stop.set()
            for future in waiting:
                future.cancel()


def run_ray(tasks: Sequence[VideoTask], cutting: Cutting, *, workers: int | None, done: Done) -> None:
    """The same on a Ray cluster: the one in RAY_ADDRESS or running here, else a new one on this machine.

    Videos, detections and the pack's folder must have the same paths on all its machines.

    Args:
        tasks: the videos.
        cutting: which crops to cut.
        workers: videos at once; None for one per CPU of the cluster.
        done: called with each outcome.

    Raises:
        UsageError: Ray is not installed.
        StoppedError: as above.
        DataError: a machine of the cluster writes to a different folder.
    """
    with _open_ray() as ray, stop_on_request() as request:
        work = ray.remote(num_cpus=1, max_retries=3)(_work_far)
        at_once = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        left, finished = iter(tasks), 0
        waiting: dict[Any, VideoTask] = {}
        try:
            while True:
                for task in _take(left, at_once - len(waiting)):
                    waiting[work.remote(task, cutting)] = task
                if not waiting:
                    return
                ready, _ = ray.wait(list(waiting), timeout=POLL_S)
                for reference in ready:
                    _check_seen(waiting.pop(reference))
                    done(ray.get(reference))
                    finished += 1
                if request.wanted:
                    raise stopped_error(request, finished, len(tasks))
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def check_ray() -> None:
    """Fail at once rather than at the first video.

    Raises:
        UsageError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--executor ray: Ray is not installed", hint="pip install 'lupctl[cluster]'")


def stopped_error(request: StopRequest, finished: int, total: int) -> StoppedError:
    """The error to raise after a request to stop."""
    kind = InterruptedRunError if request.signal == signal.SIGINT else StoppedError
    return kind(
        f"stopped on request after {finished:,} of {total:,} videos; the build can be continued",
        hint="type the same command again",
    )


def _take(left: Iterator[VideoTask], count: int) -> Iterator[VideoTask]:
    for _ in range(count):
        task = next(left, None)
        if task is None:
            return
        yield task


def _begin_worker(stop: Event) -> None:
    """Leave stop requests to the parent, and end this worker when the parent ends, for whatever reason."""
    global _stop
    _stop = stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _work(task: VideoTask, cutting: Cutting) -> Outcome:
    def check_stop() -> None:
        if _stop is not None and _stop.is_set():
            raise _StoppedInside

    check_stop()
    return build_part(task, cutting, check_stop=check_stop)


def _work_far(task: VideoTask, cutting: Cutting) -> Outcome:
    return build_part(task, cutting, check_stop=lambda: None)


@contextmanager
def _open_ray() -> Iterator[Any]:
    check_ray()
    import ray

    was_open = ray.is_initialized()
    if not was_open:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        yield ray
    finally:
        if not was_open:
            ray.shutdown()


def _check_seen(task: VideoTask) -> None:
    path: Path = task.part.with_suffix(".json")
    if not path.exists():
        raise DataError(
            f"{path}: written by the cluster, but not there; its machines need this folder at the same path",
            hint="choose an --out on a disk that all machines share",
        )
