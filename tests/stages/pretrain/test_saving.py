"""States written beside the loop: what is kept, who waits, what goes wrong on the way to the disk, and in the pack."""

import errno
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lupctl.core.errors import DataError
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.saving import StateWriter, copy_to_host
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, call_at, pretrain_job, read_state

QUIET = Progress(quiet=True)
EMPTY: dict[str, Any] = {"model": {}, "optimizer": {}, "random": 0, "damaged": []}


class SlowFolder(RunFolder):
    """A run whose disk waits to be told."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_write, self.begun = threading.Event(), list[int]()

    def save_state(self, state: Mapping[str, Any]) -> None:
        self.begun.append(state["step"])
        assert self.may_write.wait(20)
        super().save_state(state)


def test_what_is_written_is_what_was_when_it_was_saved(tmp_path: Path) -> None:
    folder = SlowFolder(tmp_path)
    writer = StateWriter(folder)
    weight, nested = torch.ones(3), {"step": 1, **EMPTY, "optimizer": {"state": {0: {"buffer": [torch.zeros(2)]}}}}
    writer.save({**nested, "model": {"w": weight}})
    weight.fill_(7)
    nested["optimizer"]["state"][0]["buffer"][0].fill_(7)
    assert not folder.resume.exists(), "the loop is further than the disk"
    folder.may_write.set()
    writer.join()
    state = read_state(tmp_path)
    assert state["model"]["w"].tolist() == [1, 1, 1]
    assert state["optimizer"]["state"][0]["buffer"][0].tolist() == [0, 0]
    writer.close()


def test_one_state_at_a_time_is_on_its_way(tmp_path: Path) -> None:
    folder = SlowFolder(tmp_path)
    writer = StateWriter(folder)
    writer.save({"step": 1, **EMPTY})
    second = threading.Thread(target=writer.save, args=({"step": 2, **EMPTY},))
    second.start()
    time.sleep(0.05)
    assert folder.begun == [1]
    assert second.is_alive(), "it waits for the first"
    folder.may_write.set()
    second.join(20)
    writer.close()
    assert folder.begun == [1, 2]
    assert read_state(tmp_path)["step"] == 2


@pytest.mark.parametrize("notice", ["save", "poll", "join"])
def test_a_full_disk_is_told_to_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: str) -> None:
    folder = RunFolder(tmp_path)
    writer = StateWriter(folder)
    writer.save({"step": 1, **EMPTY})
    writer.join()

    def fail(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    writer.save({"step": 2, **EMPTY})
    tell: dict[str, Callable[[], None]] = {
        "save": lambda: writer.save({"step": 3, **EMPTY}), "poll": lambda: poll_for_long(writer), "join": writer.join
    }  # fmt: skip
    with pytest.raises(DataError, match=r"resume\.pt: the disk is full"):
        tell[notice]()
    writer.poll()
    writer.join()
    writer.close()
    assert read_state(tmp_path)["step"] == 1, "the state before is still there"
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]


def poll_for_long(writer: StateWriter) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        writer.poll()
        time.sleep(0.005)


def test_copies_share_no_memory() -> None:
    value: dict[str, Any] = {
        "a": torch.ones(2, requires_grad=True),
        "b": [torch.zeros(1), (torch.zeros(1), "x")],
        "c": 3,
    }
    made = copy_to_host(value)
    assert made["b"][1][1] == "x"
    assert isinstance(made["b"][1], tuple)
    assert not made["a"].requires_grad
    made["a"].fill_(9)
    made["b"][1][0].fill_(9)
    assert value["a"].tolist() == [1, 1]
    assert value["b"][1][0].tolist() == [0]


def test_a_full_disk_in_the_middle_of_a_run(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch's state is on the disk when that of the second finds no slots."""
    tiny = " ".join(as_options((*PRETRAIN, "schedule.epochs=8", "saving.every_epochs=1")))
    line = f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {tiny}"
    real, calls = torch.save, []

    def save(state: Any, stream: Any) -> None:
        calls.append(state["step"])
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, stream)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        ran = lupctl(line)
    assert ran.code == 3
    assert "error: run/resume.pt: the disk is full" in ran.err
    assert calls == [2, 4]
    assert read_state(tmp_path / "run")["step"] == 2
    assert lupctl(line).code == 0
    pretrain(pretrain_job(crowd, tmp_path / "other", "schedule.epochs=8", "saving.every_epochs=1"), QUIET)
    one, other = (torch_weights(tmp_path / name) for name in ("run", "other"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_state_that_finds_no_room_for_real(crowd: Path, tmp_path: Path) -> None:
    """The system itself refuses the write in the middle of the file; the state before is still whole."""
    words = ["pretrain", "--data", str(crowd), "--gpus", "0", "--workers", "0", "--out", "run"]
    words += as_options((*PRETRAIN, "saving.every_epochs=1"))
    program = (
        "import os, resource\n"
        "from lupctl.cli.app import main\n"
        "from lupctl.core.training.engine.saving import RunFolder\n"
        "real = RunFolder.save_state\n"
        "def save(self, state):\n"
        "    if self.resume.exists():\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    real(self, state)\n"
        "RunFolder.save_state = save\n"
        "main()\n"
    )
    words[words.index("schedule.epochs=2")] = "schedule.epochs=4"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 3, done.stderr
    assert (
        "error: run/resume.pt: this disk, or this account, does not allow a file this large (File too large)"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert read_state(tmp_path / "run")["step"] == 2
    assert list((tmp_path / "run").glob(".*.part")) == []


def torch_weights(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "checkpoint.safetensors")


def cut(pack: Path) -> None:
    """Leaves a pack its first 2,048 bytes."""
    pack.write_bytes(pack.read_bytes()[:2048])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pack_that_breaks_during_the_run(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """From the third step on no image can be read; the run says which pack, and goes on once it is whole again."""
    pack = tmp_path / "crowd.h5"
    shutil.copy(crowd, pack)
    settings = ("schedule.epochs=12", "saving.every_epochs=1")
    job = pretrain_job(pack, tmp_path / "run", *settings, workers=workers)
    with monkeypatch.context() as patch:
        call_at(patch, step_module, 3, lambda: cut(pack))
        with pytest.raises(DataError, match=r"crowd\.h5") as caught:
            pretrain(job, QUIET)
    assert caught.value.exit_code == 3
    step = read_state(job.run)["step"]
    assert 2 <= step < 24
    with pytest.raises(DataError, match=r"crowd\.h5"):
        pretrain(job, QUIET)
    pack.unlink()
    with pytest.raises(DataError, match=r"crowd\.h5"):
        pretrain(job, QUIET)
    assert read_state(job.run)["step"] == step
    shutil.copy(crowd, pack)
    facts = pretrain(job, QUIET)
    assert (facts["steps"], facts["damaged"]) == (24, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pack_that_disappears_during_the_run(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Its open files are read on to the end; the same bytes come out, and a run that needs it again says so."""
    pack = tmp_path / "crowd.h5"
    shutil.copy(crowd, pack)
    job = pretrain_job(pack, tmp_path / "run", workers=workers)
    with monkeypatch.context() as patch:
        call_at(patch, step_module, 2, pack.unlink)
        assert pretrain(job, QUIET)["steps"] == 4
    assert not pack.exists()
    shutil.copy(crowd, pack)
    pretrain(pretrain_job(pack, tmp_path / "other"), QUIET)
    run, other = (tmp_path / name / "checkpoint.safetensors" for name in ("run", "other"))
    assert run.read_bytes() == other.read_bytes()
    pack.unlink()
    with pytest.raises(DataError, match=r"crowd\.h5: there is no such pack"):
        pretrain(pretrain_job(pack, tmp_path / "again"), QUIET)


def test_halves_of_a_killed_process_are_swept_up(crowd: Path, tmp_path: Path) -> None:
    job = pretrain_job(crowd, tmp_path / "run")
    job.run.mkdir()
    half = job.run / ".resume.pt.12345.part"
    half.write_bytes(b"half a state")
    pretrain(job, QUIET)
    assert not half.exists()
