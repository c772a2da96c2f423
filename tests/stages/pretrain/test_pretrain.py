"""Pre-training: resumed, killed, spread over processes and workers, damaged, and learning at all."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError, InterruptedRunError, StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import read_method
from lupctl.core.formats.weights.header import read_header
from lupctl.core.stages.pretrain import loop, setup
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining
from lupctl.core.stages.pretrain.labels import trainable_rows
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine import gradients
from lupctl.core.training.engine.curves import RateCurve
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.methods.moco import MoCo
from tests.tools.drawn_packs import pack_drawn
from tests.tools.shell import Shell
from tests.tools.tiny.training import (
    PRETRAIN,
    as_options,
    compute_in_double,
    pretrain_job,
    read_state,
    run_forked,
    signal_at,
)

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def whole(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(pretrain_job(crowd, run), QUIET)
    return run


def weights_apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of all tensors together."""
    assert one.keys() == other.keys()
    return math.sqrt(sum(float((one[key].double() - other[key].double()).square().sum()) for key in one))


def test_a_run_says_what_it_did(crowd: Path, whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["command"], facts["arch"], facts["steps"], facts["images"]) == ("pretrain", "r18", 4, 36)
    assert (facts["damaged"], facts["packs"]) == (0, ["crowd"])
    header = read_header(whole / CHECKPOINT)
    assert header.parents == facts["parents"] == {"pack:crowd": open_pack(crowd).fingerprint}
    assert header.network.head.kind == "projection"
    assert header.preprocessing.height == 32
    assert not (whole / "resume.pt").exists()
    assert [row["step"] for row in read_metrics(whole)] == [4]
    first = load_file(whole / CHECKPOINT)
    assert any(key.startswith("backbone.") for key in first)
    assert first["backbone.bn1.num_batches_tracked"] == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_stopped_and_continued_is_the_same_to_the_bit(
    crowd: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, number: int
) -> None:
    job = pretrain_job(crowd, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, steps, number)
        kind = StoppedError if number == signal.SIGTERM else InterruptedRunError
        with pytest.raises(kind, match=f"stopped on request after step {steps} of 4") as caught:
            pretrain(job, QUIET)
    assert caught.value.exit_code == (75 if number == signal.SIGTERM else 130)
    assert caught.value.hint == "type the same command again"
    assert not (job.run / CHECKPOINT).exists()
    state = read_state(job.run)
    assert state["step"] == steps
    assert int(state["model"]["queue.pointer"]) == {1: 16, 2: 32, 3: 8}[steps]
    torch.manual_seed(12345)
    pretrain(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert not (job.run / "resume.pt").exists()
    assert [row["step"] for row in read_metrics(job.run)] == [steps, 4]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, job: PretrainJob) -> None:
    """Trains until a request to stop comes in a step, counted from where the job was left."""
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, step)
        with pytest.raises(StoppedError):
            pretrain(job, Progress())


def test_stopping_twice_leaves_the_queue_of_one_stop(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, stops in (("once", [3]), ("twice", [1, 2])):
        for step in stops:
            stop_at(monkeypatch, step, pretrain_job(crowd, tmp_path / name))
    once, twice = (read_state(tmp_path / name) for name in ("once", "twice"))
    assert (once["step"], twice["step"]) == (3, 3)
    for key, value in once["model"].items():
        assert torch.equal(value, twice["model"][key]), key
    queue = once["model"]["queue.features"]
    assert torch.allclose(queue.norm(dim=0), torch.ones(40))
    assert not torch.equal(queue, read_fresh_queue(crowd, tmp_path))


def read_fresh_queue(crowd: Path, tmp_path: Path) -> torch.Tensor:
    method = setup.place_method(pretrain_job(crowd, tmp_path).recipe, torch.device("cpu"))
    assert isinstance(method, MoCo)
    return method.queue.features


def test_all_networks_of_the_method_are_kept(whole: Path) -> None:
    """So that another method can start from them; the checkpoint is one of them."""
    made, checkpoint = read_method(whole / "method.safetensors"), load_file(whole / CHECKPOINT)
    assert made.header == read_header(whole / CHECKPOINT)
    student = {key.removeprefix("student."): value for key, value in made.tensors.items() if key.startswith("student.")}
    assert student.keys() == checkpoint.keys()
    assert all(torch.equal(value, checkpoint[key]) for key, value in student.items())
    assert {f"teacher.{key}" for key in checkpoint} <= made.tensors.keys()
    assert weights_apart({key: made.tensors[f"teacher.{key}"] for key in checkpoint}, checkpoint) > 0
    assert made.tensors["queue.features"].shape == (16, 40)


def test_a_request_in_the_last_step_lets_the_run_finish(
    crowd: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, step_module, 4)
    pretrain(pretrain_job(crowd, tmp_path / "run"), QUIET)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGKILL, -9)],
)
def test_signals_to_the_real_command(
    crowd: Path, tmp_path: Path, lupctl: Shell, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*PRETRAIN, "schedule.epochs=30", "saving.every_epochs=1")
    words = ["pretrain", "--data", str(crowd), "--gpus", "0", "--workers", "1"]
    words += [*as_options(settings), "--out", "run"]
    main = "from lupctl.cli.app import main; main()"
    said = tmp_path / "stderr.txt"  # no pipe: orphaned decoding workers would keep it open, and this waiting
    with said.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", main, *words], stderr=stream)
    state = tmp_path / "run" / "resume.pt"
    deadline = time.monotonic() + 60
    while not state.exists():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(timeout=60) == code, said.read_text()
    err = said.read_text()
    step = read_state(tmp_path / "run")["step"]
    assert step < 60
    if code > 0:
        assert f"error: stopped on request after step {step} of 60" in err
        assert "hint: type the same command again" in err
        assert "Traceback" not in err  # killed, its orphaned workers may well complain
    # The same command goes on at once, whatever the dead process left.
    ran = lupctl(" ".join(words))
    assert (ran.code, ran.out) == (0, "run\n")
    assert "run: continuing" in ran.err
    # An uninterrupted run elsewhere, with another number of workers and silent, leaves the same bytes.
    other = [*words[:-1], "other", "--quiet"]
    other[other.index("--workers") + 1] = "0"
    assert lupctl(" ".join(other)).code == 0
    assert (tmp_path / "other" / CHECKPOINT).read_bytes() == (tmp_path / "run" / CHECKPOINT).read_bytes()
    assert [row["step"] for row in read_metrics(tmp_path / "run")][-1] == 60


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(crowd: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "run", workers=workers), QUIET)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


def test_another_seed_is_another_run(crowd: Path, whole: Path, tmp_path: Path) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "run", "seed=2"), QUIET)
    assert weights_apart(load_file(tmp_path / "run" / CHECKPOINT), load_file(whole / CHECKPOINT)) > 1


def test_two_processes_are_one(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_double(monkeypatch, step_module, setup, "place_method")
    one, two = (pretrain_job(crowd, tmp_path / name, "saving.every_epochs=1") for name in ("one", "two"))
    two.run.mkdir()
    pretrain(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    assert tensors[0]["backbone.conv1.weight"].dtype == torch.float64
    assert weights_apart(*tensors) < 1e-9
    facts = [json.loads((job.run / "run.json").read_text()) for job in (one, two)]
    assert facts[0]["loss"] == pytest.approx(facts[1]["loss"], abs=1e-5)
    assert facts[0]["hits"] == facts[1]["hits"]


def test_two_processes_leave_the_state_of_one(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven steps: weights, running statistics, momentum, and a queue that has wrapped four times."""
    compute_in_double(monkeypatch, step_module, setup, "place_method")
    signal_at(monkeypatch, step_module, 11)  # in each process: both forks inherit it
    one = pretrain_job(crowd, tmp_path / "one", "schedule.epochs=6")
    two = pretrain_job(crowd, tmp_path / "two", "schedule.epochs=6")
    two.run.mkdir()
    assert run_forked(loop.train_job, two, processes=2) == [1, 1], "both stopped"
    with pytest.raises(StoppedError):
        pretrain(one, QUIET)
    states = [read_state(job.run) for job in (one, two)]
    assert states[0]["step"] == states[1]["step"] == 11
    assert torch.equal(states[0]["model"]["queue.pointer"], states[1]["model"]["queue.pointer"])
    assert not torch.equal(states[0]["model"]["queue.features"], read_fresh_queue(crowd, tmp_path))
    assert weights_apart(states[0]["model"], states[1]["model"]) < 1e-7
    momenta = [state["optimizer"]["state"] for state in states]
    for number, kept in momenta[0].items():
        torch.testing.assert_close(kept["momentum_buffer"], momenta[1][number]["momentum_buffer"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_are_one_to_the_bit(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Eleven steps of the published recipe's views in single precision, with a queue that wraps four times."""
    signal_at(monkeypatch, step_module, 11)
    one, many = (pretrain_job(crowd, tmp_path / name, "schedule.epochs=6") for name in ("one", "many"))
    many.run.mkdir()
    assert run_forked(loop.train_job, many, processes=processes) == [1] * processes, "all stopped"
    with pytest.raises(StoppedError):
        pretrain(one, QUIET)
    states = [read_state(job.run) for job in (one, many)]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key
    for number, kept in states[0]["optimizer"]["state"].items():
        assert torch.equal(kept["momentum_buffer"], states[1]["optimizer"]["state"][number]["momentum_buffer"])
    # What one process began, several may end, and the other way round; the stop itself moved nothing.
    monkeypatch.undo()
    assert run_forked(loop.train_job, one, processes=processes) == [0] * processes
    loop.train_job(many)
    assert (one.run / CHECKPOINT).read_bytes() == (many.run / CHECKPOINT).read_bytes()
    never = pretrain_job(crowd, tmp_path / "never", "schedule.epochs=6")
    pretrain(never, QUIET)
    assert (never.run / CHECKPOINT).read_bytes() == (many.run / CHECKPOINT).read_bytes()


def test_four_processes_killed_and_continued_add_in_the_same_order(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three or more summands round by their order, which must not hang on where a process began."""
    once, again = (pretrain_job(crowd, tmp_path / name, "saving.every_epochs=1") for name in ("once", "again"))
    for job in (once, again):
        job.run.mkdir()
    many = partial(DistributedDataParallel, bucket_cap_mb=0.02)
    monkeypatch.setattr(gradients, "DistributedDataParallel", many)
    assert run_forked(loop.train_job, once, processes=4) == [0] * 4
    with monkeypatch.context() as patch:
        patch.setattr(StateWriter, "poll", StateWriter.join)
        signal_at(patch, step_module, 4, signal.SIGKILL)
        assert run_forked(loop.train_job, again, processes=4) == [-signal.SIGKILL] * 4
    assert read_state(again.run)["step"] == 2
    assert run_forked(loop.train_job, again, processes=4) == [0] * 4
    assert (again.run / CHECKPOINT).read_bytes() == (once.run / CHECKPOINT).read_bytes()


@pytest.mark.slow
def test_the_launcher_runs_two_processes_and_hands_their_error_back(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    options = " ".join(as_options((*PRETRAIN, "saving.every_epochs=1")))
    words = f"pretrain --data {crowd} --gpus 0 --workers 0 {options}"
    for name, count in (("one", 1), ("two", 2)):
        ran = lupctl(f"{words} --out {name} --processes {count}")
        assert ran.code == 0, ran.err
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in two.items()}
    assert torch.allclose(one["head.out.weight"], two["head.out.weight"], atol=0.05)
    ran = lupctl(f"{words} --out nan --processes 2 --set optim.lr=1e38 --set schedule.warmup_epochs=0")
    assert ran.code == 3
    assert "became " in ran.err.splitlines()[-2]
    assert "hint: start over with a smaller rate" in ran.err
    main = "from lupctl.cli.app import main; main()"
    longer = f"{words} --out stop --processes 2 --set schedule.epochs=500".split()
    process = subprocess.Popen([sys.executable, "-c", main, *longer], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "stop" / "resume.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 75, err
    assert "stopped on request after step" in err


def test_the_loss_falls(crowd: Path, tmp_path: Path) -> None:
    plain = [f"augment.{key}=0" for key in ("grey", "blur", "erase", "flip")]
    settings = (
        "moco.queue=16", "moco.momentum=0.9", "bn_groups=2", "optim.lr=0.02", "schedule.epochs=30",
        "schedule.warmup_epochs=0", "augment.crop_area=[]", *plain,
    )  # fmt: skip
    pretrain(pretrain_job(crowd, tmp_path / "run", *settings), QUIET)
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    # With 16 negatives, guessing costs log(17) = 2.83 and hits 1 in 17.
    assert rows[0]["loss"] > 2.3
    assert rows[-1]["loss"] < 2.1
    assert rows[-1]["hits"] > 0.3
    assert rows[-1]["lr"] < rows[0]["lr"] < 0.02


def test_a_loss_that_is_no_number_stops_the_run(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pretrain_job(crowd, tmp_path / "run", "saving.every_epochs=1", "schedule.epochs=6")
    real, rates = RateCurve.at, dict[int, float]()

    def rate(self: RateCurve, step: int, *, scale: float = 1.0) -> float:
        rates[step] = 1e38 if step == 4 else real(self, step, scale=scale)
        return rates[step]

    monkeypatch.setattr(RateCurve, "at", rate)
    with pytest.raises(DataError, match=r"(loss|a weight) became (nan|inf) by step 6 at learning rate") as caught:
        pretrain(job, QUIET)
    assert f"last good state: {job.run}/resume.pt" in caught.value.message
    assert f"{rates[5]:.3g};" in caught.value.message
    assert f"--force --lr {rates[5] / 10:.1g}" in caught.value.hint
    state = read_state(job.run)
    assert state["step"] == 4
    assert all(bool(torch.isfinite(value).all()) for value in state["model"].values())
    assert not (job.run / CHECKPOINT).exists()
    monkeypatch.undo()
    assert pretrain(job, QUIET)["steps"] == 12, "the good state goes on"


def test_weights_that_overflow_in_the_last_step_are_not_kept(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = pretrain_job(crowd, tmp_path / "run")
    real: Callable[[RateCurve, int], float] = RateCurve.at
    monkeypatch.setattr(RateCurve, "at", lambda self, step, scale=1.0: 3e38 if step == 3 else real(self, step))
    with pytest.raises(DataError, match=r"a weight became (nan|inf) by step 4"):
        pretrain(job, QUIET)
    assert not (job.run / CHECKPOINT).exists()
    assert not (job.run / "run.json").exists()


def damage_image(pack: Path, row: int) -> None:
    """Flips one bit in the middle of an image's bytes."""
    made = open_pack(pack)
    import h5py

    with h5py.File(pack) as file:
        offset = int(file["images/offsets"][row]) + int(file["images/offsets"][row + 1])
    content = bytearray(pack.read_bytes())
    content[made.shards[0].base + offset // 2] ^= 1
    pack.write_bytes(content)


def test_damaged_images_are_passed_over_and_counted(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "crowd.h5"
    shutil.copy(crowd, pack)
    for row in (3, 20):
        damage_image(pack, row)
    # Six epochs: both images come up, several times, on both sides of the stop.
    job = pretrain_job(pack, tmp_path / "run", "schedule.epochs=6")
    stop_at(monkeypatch, 7, job)
    facts = pretrain(job, Progress())
    assert facts["damaged"] == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: skipped: ")]
    names = open_pack(pack).samples.name
    assert len(lines) == 2
    for row in (3, 20):
        assert sum(f"{pack}: image {row} ({names[row]})" in line for line in lines) == 1, lines
    pretrain(replace(job, run=tmp_path / "again", workers=1), QUIET)
    assert (tmp_path / "again" / CHECKPOINT).read_bytes() == (job.run / CHECKPOINT).read_bytes()


def test_a_labelled_pack_gives_its_training_images_alone(crowd: Path, labelled: Path, tmp_path: Path) -> None:
    pack = open_pack(labelled)
    rows = trainable_rows([pack, open_pack(crowd)])
    assert np.array_equal(rows[:36], np.flatnonzero(pack.samples.role == 1))
    assert np.array_equal(rows[36:], np.arange(36) + len(pack))
    plan = plan_pretraining(pretrain_job(labelled, tmp_path / "run"))
    assert (plan.images, plan.steps_per_epoch, plan.steps, plan.batch_per_device) == (36, 2, 4, 16)
    facts = pretrain(pretrain_job(labelled, tmp_path / "run"), QUIET)
    assert (facts["images"], facts["packs"]) == (36, ["labelled"])


def test_several_packs_are_one(crowd: Path, labelled: Path, tmp_path: Path) -> None:
    job = replace(pretrain_job(crowd, tmp_path / "run"), packs=(crowd, labelled))
    facts = pretrain(job, QUIET)
    assert (facts["images"], facts["steps"], facts["packs"]) == (72, 8, ["crowd", "labelled"])
    assert set(facts["parents"]) == {"pack:crowd", "pack:labelled"}


def test_a_pack_of_test_images_is_refused(tmp_path: Path) -> None:
    plan = SyntheticPlan(test_persons=2, cameras=2, shots=2, height=32, width=16)
    pack = pack_drawn(plan, tmp_path / "test.h5", dataset="test")
    with pytest.raises(DataError, match="no unlabelled or training images, only query and gallery images"):
        pretrain(pretrain_job(pack, tmp_path / "run"), QUIET)
    assert not (tmp_path / "run").exists(), "refused before anything is made"


def test_force_starts_over(crowd: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pretrain_job(crowd, tmp_path / "run")
    stop_at(monkeypatch, 2, job)
    other = pretrain_job(crowd, job.run, "optim.lr=0.05")
    with pytest.raises(UsageError, match=r"contains a run with recipe\.optim\.lr = 0\.1, but now it is 0\.05"):
        pretrain(other, QUIET)
    pretrain(replace(other, force=True), QUIET)
    pretrain(replace(job, force=True), QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert [row["step"] for row in read_metrics(job.run)] == [4]


def test_a_finished_run_is_left_alone(crowd: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir() if path.name != ".lock"}
    facts = pretrain(pretrain_job(crowd, whole), Progress())
    assert capsys.readouterr().err == f"{whole}: already finished; --force trains again\n"
    assert facts["steps"] == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_pack_under_the_same_name_is_refused(crowd: Path, labelled: Path, tmp_path: Path) -> None:
    pack = tmp_path / "crowd.h5"
    shutil.copy(crowd, pack)
    pretrain(pretrain_job(pack, tmp_path / "run"), QUIET)
    plan = SyntheticPlan(seed=5, unlabelled_persons=13, scenes=3, height=32, width=16)
    pack.unlink()
    pack_drawn(plan, pack, dataset="crowd")
    with pytest.raises(UsageError, match=r"contains a run with inputs\.pack:crowd = 'sha256:"):
        pretrain(pretrain_job(pack, tmp_path / "run"), QUIET)


@pytest.mark.parametrize(
    ("settings", "processes", "message"),
    [
        (("data.batch=64",), 1, "data.batch = 64 is larger than the number of images, 36"),
        (("bn_groups=2",), 4, "bn_groups = 2 does not divide among 4 devices"),
        ((), 3, "a batch of 16 does not divide among 3 devices"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    crowd: Path, tmp_path: Path, settings: tuple[str, ...], processes: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(pretrain_job(crowd, tmp_path / "run", *settings, processes=processes), QUIET)
    assert not (tmp_path / "run").exists()
