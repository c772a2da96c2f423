"""Trainings that cannot begin leave no folder: not in `runs/`, and not where `--out` says."""

import errno
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from lupctl.core.stages.finetune import loop as finetune_loop
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options, call_at, pretrain_job, signal_at

PRE = f"pretrain --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))}"
FINE = f"finetune --recipe bot --gpus 0 --workers 0 {' '.join(as_options(FINETUNE))}"


@pytest.fixture(scope="module")
def start(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained network outside the workspace."""
    run = tmp_path_factory.mktemp("start") / "pre"
    pretrain(pretrain_job(crowd, run), Progress(quiet=True))
    return run


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (PRE + " {crowd} --batch 64", 2, "data.batch = 64 is larger than the number of images, 36"),
        (PRE + " {crowd} --batch 17", 2, "--batch 17: the recipe's bn_groups = 4"),
        (PRE + " {crowd} --processes 3", 2, "does not divide among 3 devices"),
        (PRE + " gone", 3, "no pack of 'gone'"),
        (PRE + " {text}", 3, "text.h5: "),
        (PRE + " {crowd} --probe {crowd}", 3, "crowd.h5: cannot be a probe: there is no query"),
        (PRE + " {crowd} --probe gone", 3, "no pack of 'gone'"),
        (PRE + " {crowd} --set optim.rl=1", 2, "unknown recipe key"),
        (PRE + " {crowd} --gpus 8", 5, "--gpus 8: this machine has 0"),
        (FINE + " {labelled} --from scratch --gpus 8", 5, "--gpus 8: this machine has 0"),
        (FINE + " {labelled} --from gone", 3, "no checkpoint 'gone'"),
        (FINE + " {labelled}", 3, "no finished pre-training run of r18"),
        (FINE + " {labelled} --from {start} --set net.width=8", 2, "width 4; the recipe says r18 of width 8"),
        (FINE + " {labelled} --from {start} --arch r50", 2, "a trunk r18 of width 4; the recipe says r50 of width 4"),
        (FINE + " {labelled} --from {start} --set net.ibn=true", 3, "does not fit the network"),
        (FINE + " {labelled} --from imagenet", 3, "ImageNet weights: does not fit the network"),
        (FINE + " {labelled} --from imagenet --set net.ibn=true", 2, "ImageNet weights for plain trunks"),
        (FINE + " {labelled} --from scratch --batch 30", 2, "data.persons = 10 persons per batch, but"),
        (FINE + " {labelled} --from scratch --batch 10", 2, "--batch 10: a batch is two persons or more"),
        (FINE + " {labelled} --from scratch --subset gone.txt", 3, "gone.txt"),
        (FINE + " {labelled} --from scratch --processes 5", 2, "does not divide among 5 devices"),
        (FINE + " {crowd} --from scratch", 3, "0 labelled training images of 0 persons"),
        (FINE + " {labelled} {labelled} --from scratch", 2, "both contain the dataset"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("out", ["", " --out there/run"], ids=["runs", "out"])
def test_an_early_error_leaves_no_folder(
    lupctl: Shell, crowd: Path, labelled: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    line: str, code: int, message: str, out: str,
) -> None:  # fmt: skip
    wide = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    monkeypatch.setattr("lupctl.core.stages.finetune.network.imagenet_trunk", lambda arch, *, progress: wide)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    text = tmp_path / "text.h5"
    text.write_text("I am no pack")
    ran = lupctl(line.format(crowd=crowd, labelled=labelled, text=text, start=start) + out)
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert message in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.h5"]


def test_imagenet_weights_that_cannot_be_fetched_leave_no_folder(
    lupctl: Shell, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*given: Any, **more: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.ResNet18_Weights.get_state_dict", fetch)
    ran = lupctl(f"{FINE} {labelled} --from imagenet")
    assert ran.code == 3
    assert "the ImageNet weights of r18 could not be fetched" in ran.err
    assert list(tmp_path.iterdir()) == []


def fail_at(patch: pytest.MonkeyPatch, stage: str, step: int, error: Exception) -> None:
    """Lets a loop meet an error at a step, counted from 1."""

    def fail() -> None:
        raise error

    call_at(patch, step_module if stage == "pretrain" else finetune_loop, step, fail)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_first_step_that_fails_leaves_no_folder(
    lupctl: Shell, crowd: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    line = f"{PRE} {crowd}" if stage == "pretrain" else f"{FINE} {labelled} --from scratch --tensorboard"
    for out in ("", " --out run"):
        with monkeypatch.context() as patch:
            fail_at(patch, stage, 1, MemoryError("3 GiB"))
            ran = lupctl(line + out)
        assert (ran.code, ran.out) == (5, "")
        assert "error: out of memory (3 GiB)" in ran.err
        assert not list(tmp_path.rglob("recipe.toml"))
        assert not (tmp_path / "run").exists()
        assert list(tmp_path.glob("lup/runs/*")) == []
    smaller = lupctl(f"{line} --lr 0.01")
    assert smaller.code == 0, "the recipe may change: there was nothing to lose"


def test_other_files_in_a_named_folder_stay(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        fail_at(patch, "pretrain", 1, MemoryError("3 GiB"))
        assert lupctl(f"{PRE} {crowd} --out run").code == 5
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_a_run_that_has_done_something_stays(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 1)
        assert lupctl(f"{PRE} {crowd} --out run").code == 75
    before = RunFolder(run).resume.read_bytes()
    with monkeypatch.context() as patch:
        fail_at(patch, "pretrain", 1, MemoryError("3 GiB"))
        assert lupctl(f"{PRE} {crowd} --out run").code == 5
    assert RunFolder(run).resume.read_bytes() == before
    with monkeypatch.context() as patch:
        fail_at(patch, "pretrain", 2, OSError(errno.EIO, "no disk"))
        ran = lupctl(f"{PRE} {crowd} --out other --set saving.every_epochs=0 --batch 12 --set bn_groups=4")
    assert (ran.code, ran.err.splitlines()[-2]) == (3, "error: no disk")
    assert not (tmp_path / "other").exists()
