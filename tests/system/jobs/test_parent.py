"""A command that is killed leaves no process and no shared memory behind, whenever it is killed."""

import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.system.jobs import parent as children
from lupctl.core.training.loading.loaders import open_loader
from lupctl.core.training.loading.slots import WorkerSlots
from tests.tools.processes import in_session, own_shared_memory
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options

MAIN = "from lupctl.cli.app import main; main()"
LONG = ("schedule.epochs=100000", "schedule.warmup_epochs=0")
PRETRAINING = shlex.join(["pretrain", "--data", "{crowd}", "--gpus", "0", *as_options((*PRETRAIN, *LONG))])
FINETUNING = shlex.join([
    "finetune", "{labelled}", "--recipe", "bot", "--from", "scratch", "--gpus", "0", *as_options((*FINETUNE, *LONG)),
])  # fmt: skip
COMMANDS = {
    "pretrain": f"{PRETRAINING} --workers 2",
    "pretrain in processes": f"{PRETRAINING} --workers 1 --processes 2",
    "finetune": f"{FINETUNING} --workers 2",
    "finetune in processes": f"{FINETUNING} --workers 1 --processes 2",
}
# A child that is still importing torch notices after that, which takes a busy machine half a minute.
GONE_S = 60.0


def kill_at(line: str, home: Path, *, delay_s: float, children: int) -> None:
    """Starts a command, and kills it some time after it has so many children; no process of it may stay."""
    started = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MAIN, *shlex.split(line), "--home", str(home)],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    end = time.monotonic() + 120
    while len(in_session(started.pid)) <= children and started.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(delay_s)
    assert started.poll() is None, started.communicate()[1]
    started.kill()
    started.wait()
    end = time.monotonic() + GONE_S
    while (left := in_session(started.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    for one in left:
        os.kill(int(one.partition(":")[0]), signal.SIGKILL)
    assert started.stderr is not None
    started.stderr.close()
    assert left == [], f"left {GONE_S:g} s after a kill {delay_s:.2f} s after the start of its children"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("name", "kills"), [("pretrain", 1), *(pytest.param(name, 5, marks=pytest.mark.slow) for name in COMMANDS)]
)
def test_a_killed_command_leaves_no_process(name: str, kills: int, crowd: Path, labelled: Path, tmp_path: Path) -> None:
    line = COMMANDS[name].format(crowd=crowd, labelled=labelled)
    shared = own_shared_memory()
    chance = random.Random(name)
    for number in range(kills):
        # From the moment that the first child exists to some time into the training.
        kill_at(line, tmp_path / str(number), delay_s=chance.uniform(0, 2), children=1 + number % 2)
    end = time.monotonic() + GONE_S  # what other programs have there now, they free again
    while (left := own_shared_memory() - shared) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == set()


def _sleep_as_child(ready: Any, *, platform: str) -> None:
    sys.platform = platform
    children.end_with_parent()
    ready.set()
    time.sleep(60)


def _start_two(pipe: Any, platform: str) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        ready = context.Event()
        child = context.Process(target=_sleep_as_child, args=(ready,), kwargs={"platform": platform})
        child.start()
        ready.wait()
        pipe.send(child.pid)
    time.sleep(60)


class LargeBatches:
    """Batches that fill a pipe, so that a worker waits until somebody reads."""

    def __init__(self) -> None:
        self.slots = WorkerSlots()

    def __getitem__(self, item: int) -> Any:
        return bytes(1 << 20)

    def describe(self, image: int) -> str:
        return f"image {image}"


def _open_and_wait(pipe: Any) -> None:
    batches = open_loader(LargeBatches(), range(100), workers=1, pin=False)
    pipe.send(multiprocessing.active_children()[0].pid)
    time.sleep(60)
    batches.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_that_waits_to_send_a_batch_ends_with_its_parent() -> None:
    """It has the reading end of its own pipe, so that the pipe never breaks."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    parent = context.Process(target=_open_and_wait, args=(theirs,))
    parent.start()
    worker = ours.recv()
    time.sleep(0.5)  # until its pipe is full
    assert is_running(worker)
    parent.kill()
    parent.join()
    end = time.monotonic() + GONE_S
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.02)
    left = is_running(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("platform", sorted({sys.platform, "other"}))
def test_children_end_with_their_parent_on_any_system(platform: str) -> None:
    """Two siblings: the second one holds what the first one watches, and ends first."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    parent = context.Process(target=_start_two, args=(theirs, platform))
    parent.start()
    pids = [ours.recv(), ours.recv()]
    assert all(is_running(pid) for pid in pids)
    parent.kill()
    parent.join()
    end = time.monotonic() + GONE_S
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert [pid for pid in pids if is_running(pid)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own way")
def test_another_program_ends_with_the_process_that_started_it() -> None:
    script = (
        "import subprocess, sys, time\n"
        "from lupctl.core.system.jobs.parent import ends_with_this_process\n"
        "started = subprocess.Popen(['sleep', '60'], preexec_fn=ends_with_this_process())\n"
        "print(started.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    end = time.monotonic() + 10
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
