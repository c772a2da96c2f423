"""A run's folder: who may work in it, what survives a crash, and when a run begins, goes on, or is refused."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.curves import even_epochs
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.runs import Metrics, RunFolder, read_metrics
from lupctl.core.training.engine.state import begin_run, first_difference, pack_state, restore_state

HOLDER = """
import sys, time
from pathlib import Path
from lupctl.core.training.engine.runs import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    if sys.argv[2] == "fork":
        import os
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, b"!")  # it has closed its copy of the lock by now
            time.sleep(60)
        os.read(told, 1)
        print(child, flush=True)
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(path: Path, how: str = "plain") -> tuple[subprocess.Popen[str], list[str]]:
    """A process that holds a run's folder, and what it said until then."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    while (line := process.stdout.readline().strip()) != "held":
        assert line, "the holder died"
        said.append(line)
    return process, said


def test_a_second_process_is_refused_until_the_holder_is_killed(tmp_path: Path) -> None:
    process, (child,) = hold_elsewhere(tmp_path / "run", "fork")
    try:
        with (
            pytest.raises(DataError, match="run: another lupctl is training into this folder"),
            RunFolder(tmp_path / "run").held(),
        ):
            pass
        process.kill()
        process.wait(timeout=10)
        # At once, though a forked child (as decoding workers are) has the same file open and lives on.
        with RunFolder(tmp_path / "run").held():
            os.kill(int(child), 0)
    finally:
        process.kill()
        os.kill(int(child), signal.SIGKILL)
        process.communicate()


def test_a_folder_is_free_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path / "run").held():
            pass


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError, match="file") as caught, RunFolder(place).held():
            pass
        assert "--out" in caught.value.hint


class _FullDisk:
    """A file on a disk with slots for so many bytes."""

    def __init__(self, stream: Any, slots: int) -> None:
        self._stream, self._room = stream, slots

    def __enter__(self) -> "_FullDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        self._room -= memoryview(data).nbytes
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._stream.write(data))

    def flush(self) -> None:
        self._stream.flush()


@pytest.mark.parametrize("slots", [0, 100, 900, 5000])
def test_a_full_disk_keeps_the_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int) -> None:
    folder = RunFolder(tmp_path)
    state = {"step": 1, "model": {"w": torch.arange(2000.0)}, "optimizer": {}, "random": 0, "damaged": []}
    folder.save_state(state)
    before = folder.resume.read_bytes()
    assert len(before) > 5000
    really_open: Callable[..., Any] = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *how: _FullDisk(really_open(self, *how), slots))
        with pytest.raises(DataError, match=r"resume\.pt: the disk is full \(\d+ MiB free\)") as caught:
            folder.save_state({**state, "step": 2})
    assert "free some space" in caught.value.hint
    assert folder.resume.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]
    loaded = folder.load_state()
    assert loaded is not None
    assert loaded["step"] == 1


def test_a_kill_while_saving_keeps_the_previous_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_state({"step": 1, "model": {}, "optimizer": {}, "random": 0, "damaged": []})
    before = folder.resume.read_bytes()
    script = """
import os, sys, torch
from pathlib import Path
from lupctl.core.training.engine.runs import RunFolder
def save(state, stream):
    stream.write(b"half of it")
    stream.flush()
    os.kill(os.getpid(), 9)
torch.save = save
RunFolder(Path(sys.argv[1])).save_state({})
"""
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert folder.resume.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"hello there, this is text",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: bytes(range(256)) * 8,
        lambda content: b"\x80\x02}q\x00." + b"\x00" * 100,
    ],
    ids=["empty", "text", "half", "cut", "noise", "pickle"],
)
def test_a_damaged_state_is_a_format_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.save_state({"step": 1, "model": {"w": torch.zeros(99)}, "optimizer": {}, "random": 0, "damaged": []})
    folder.resume.write_bytes(damage(folder.resume.read_bytes()))
    with pytest.raises(FormatError, match=r"resume\.pt: ") as caught:
        folder.load_state()
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert "--force" in caught.value.hint


def test_another_torch_file_is_no_state(tmp_path: Path) -> None:
    for content in ({"step": 3, "model": {}}, torch.zeros(3)):
        torch.save(content, tmp_path / "resume.pt")
        with pytest.raises(FormatError, match=r"not the state of a run \(.*optimizer, random, damaged missing\)"):
            RunFolder(tmp_path).load_state()


def test_a_state_brings_back_model_optimizer_and_random_numbers(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.rand(4, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(5)
    model, optimizer = build()
    train(model, optimizer)
    folder = RunFolder(tmp_path)
    folder.save_state(pack_state(1, model, optimizer, precision=torch.float32, damaged={"b", "a"}))
    train(model, optimizer)
    torch.manual_seed(99)
    other, other_optimizer = build()
    assert restore_state(folder, other, other_optimizer) == (1, ("a", "b"))
    train(other, other_optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert restore_state(RunFolder(tmp_path / "none"), other, other_optimizer) == (0, ())


SETUP = {"recipe": {"seed": 1, "optim": {"lr": 0.1, "name": "sgd"}}, "inputs": {"pack:a": "sha256:1"}}
TEXT = 'seed = 1\n[optim]\nlr = 0.1\nname = "sgd"\n'


def begin(folder: RunFolder, story: Any = SETUP, *, force: bool = False) -> bool:
    return begin_run(folder, story, TEXT, force=force, progress=Progress())


def finish(folder: RunFolder) -> None:
    folder.checkpoint.write_bytes(b"weights")
    folder.write_facts({"command": "pretrain"})


def test_a_run_begins_goes_on_and_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    assert begin(folder)
    assert capsys.readouterr().err == ""
    assert folder.read_setup() == SETUP
    assert begin(folder)
    assert capsys.readouterr().err == f"{tmp_path}: continuing\n"
    folder.checkpoint.write_bytes(b"weights")
    assert begin(folder), "the facts are written last: without them the run is not finished"
    capsys.readouterr()
    finish(folder)
    assert not begin(folder)
    assert capsys.readouterr().err == f"{tmp_path}: already finished; --force trains again\n"


def test_force_removes_a_run_and_what_was_made_of_it_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(folder)
    finish(folder)
    for name in ("resume.pt", "metrics.jsonl", "a.features.h5", "report.json", "notes.txt", "other.h5"):
        (tmp_path / name).write_text("x")
    assert begin(folder, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.json", "notes.txt", "other.h5", "recipe.toml"]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("recipe", {"seed": 2, "optim": {"lr": 0.2, "name": "sgd"}}, "recipe.seed = 1, but now it is 2"),
        ("recipe", {"seed": 1, "optim": {"lr": 0.2, "name": "adam"}}, "recipe.optim.lr = 0.1, but now it is 0.2"),
        ("recipe", {"seed": 1, "optim": {"lr": 0.1, "name": "sgd"}, "new": 3}, "recipe.new = None, but now it is 3"),
        ("inputs", {"pack:a": "sha256:2"}, "inputs.pack:a = 'sha256:1', but now it is 'sha256:2'"),
        ("inputs", {}, "inputs.pack:a = 'sha256:1', but now it is None"),
    ],
)
@pytest.mark.parametrize("is_finished", [False, True])
def test_a_changed_recipe_or_pack_is_refused(
    tmp_path: Path, part: str, value: Any, message: str, is_finished: bool
) -> None:
    folder = RunFolder(tmp_path)
    begin(folder)
    if is_finished:
        finish(folder)
    with pytest.raises(UsageError) as caught:
        begin(folder, {**SETUP, part: value})
    assert caught.value.message == f"{tmp_path}: contains a run with {message}"
    assert "--force" in caught.value.hint
    assert folder.read_setup() == SETUP


def test_a_damaged_story_is_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for spoil in ("recipe.toml", "inputs.json"):
        begin(folder, force=True)
        (tmp_path / spoil).write_text("{[", encoding="utf-8")
        with pytest.raises(DataError, match="the run's recipe is damaged"):
            begin(folder)
    begin(folder, force=True)
    (tmp_path / "inputs.json").unlink()
    with pytest.raises(DataError, match="damaged"):
        begin(folder)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "resume.pt"])
def test_weights_of_unknown_origin_are_neither_used_nor_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"{name}: found without the recipe\.toml"):
        begin(RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert begin(RunFolder(tmp_path), force=True)


def test_metrics_beyond_the_state_are_dropped(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, step=0)
    for step in (10, 20, 30):
        metrics.write({"step": step, "loss": step / 7})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)][-1] == 30, "half a line is none"
    metrics = Metrics(tmp_path, step=20)
    metrics.write({"step": 25, "loss": 1.0})
    metrics.close()
    assert read_metrics(tmp_path) == [
        {"step": 10, "loss": 10 / 7},
        {"step": 20, "loss": 20 / 7},
        {"step": 25, "loss": 1.0},
    ]
    Metrics(tmp_path, step=0).close()
    assert read_metrics(tmp_path) == [], "a run that starts over starts its metrics over"
    with pytest.raises(DataError, match="there is no such file"):
        read_metrics(tmp_path / "none")


class _Bar:
    def __init__(self) -> None:
        self.count, self.notes = 0, list[str]()

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self.count += count
        self.notes.append(note)

    def grow(self, count: int) -> None:
        raise AssertionError("a run's length is known")


def open_log(path: Path, **more: Any) -> LoopLog:
    return LoopLog(
        RunFolder(path),
        start=0,
        total=25,
        batch=8,
        epochs=even_epochs(4, 7),
        is_writer=True,
        progress=Progress(),
        **more,
    )


def test_a_log_writes_means_every_ten_steps_and_at_the_end(tmp_path: Path) -> None:
    log, bar = open_log(tmp_path), _Bar()
    for step in range(25):
        log.meter.wait()
        if step == 3:
            time.sleep(0.02)
        log.meter.work()
        log.add(loss=torch.tensor(float(step)))
        log.write_step(step + 1, rate=0.5, is_due=step == 4, bar=bar)
    log.close()
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["epoch"], row["loss"], row["lr"]) for row in rows] == [
        (5, 1, 2.0, 0.5), (10, 2, 7.0, 0.5), (20, 4, 14.5, 0.5), (25, 6, 22.0, 0.5),
    ]  # fmt: skip
    assert 0 < rows[0]["data_wait"] <= 1
    assert rows[0]["images_per_s"] < 40 / 0.02, "five batches of 8 took 20 ms at least"
    assert bar.count == 25
    last = [note for note in bar.notes if note][-1]
    assert re.fullmatch(r"loss 22\.000, lr 0\.5, [\d,]+ images/s, waiting \d+%", last)
    assert log.values == {"loss": 22.0}


def test_a_damaged_image_is_said_once_and_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = open_log(tmp_path, damaged=("pack.h5: image 7",))
    log.note_damage(("pack.h5: image 7", "pack.h5: image 9"))
    log.note_damage(("pack.h5: image 9",))
    log.share_damage()
    log.close()
    assert capsys.readouterr().err == "warning: skipped: pack.h5: image 9\n"
    assert log.damaged == {"pack.h5: image 7", "pack.h5: image 9"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_stop_a_run(tmp_path: Path, bad: float) -> None:
    log = open_log(tmp_path)
    log.add(loss=torch.tensor(bad))
    log.write_step(1, rate=0.25, is_due=False, bar=_Bar())
    log.add(loss=torch.tensor(1.0))
    with pytest.raises(DataError, match=rf"loss became {bad} by step 2 at learning rate 0.25; last good state: none"):
        log.write_step(2, rate=0.25, is_due=True, bar=_Bar())
    network = nn.Linear(2, 2)
    log.check_weights(network, done=3, rate=0.25)
    with torch.no_grad():
        network.weight[1, 0] = bad
    (tmp_path / "resume.pt").write_text("")
    with pytest.raises(DataError, match=rf"a weight became {bad} by step 3 .*last good state: {tmp_path}/resume\.pt"):
        log.check_weights(network, done=3, rate=0.25)
    log.close()
    assert read_metrics(tmp_path) == []


def test_what_is_due() -> None:
    epochs = even_epochs(2, 6)
    assert [done for done in range(1, 13) if epochs.is_due(done, 3)] == [6, 12]
    assert not any(epochs.is_due(done, 0) for done in range(1, 13))


def test_first_difference_finds_the_first_key_of_either_side() -> None:
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"c": 3, "b": 1}}) == ("a.c", 2, 3)
    assert first_difference({"a": {"b": 1}}, {"a": 1}) == ("a", {"b": 1}, 1)
    assert first_difference(json.loads(json.dumps({"a": 0.1})), {"a": 0.1}) is None
