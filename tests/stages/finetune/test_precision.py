"""Training in bf16 on a CPU: recorded, continued to the bit, and shared by processes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import DataError, StoppedError
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain import loop as pretrain_loop
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import CpuBf16
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine import settled
from tests.tools.tiny.training import finetune_job, pretrain_job, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bf16 fast, in place of this one."""
    for module in (precision, settled):
        monkeypatch.setattr(module, "measure_cpu", lambda: CpuBf16("AMX", 4.0))


def facts(run: Path) -> dict[str, object]:
    return json.loads((run / "run.json").read_text())


@pytest.mark.usefixtures("fast")
def test_auto_is_bf16_and_says_so(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auto, named, full = (
        finetune_job(labelled, tmp_path / kind, f"precision={kind}") for kind in ("auto", "bf16", "float32")
    )
    finetune(auto, Progress())
    assert "precision: bf16, 4.0 times as fast as float32 (AMX)" in capsys.readouterr().err
    for job in (named, full):
        finetune(job, QUIET)
    assert [facts(job.run)["precision"] for job in (auto, named, full)] == ["bf16", "bf16", "float32"]
    weights = [load_file(job.run / CHECKPOINT) for job in (auto, named, full)]
    key = "backbone.layer4.1.conv2.weight"
    assert torch.equal(weights[0][key], weights[1][key])
    assert not torch.equal(weights[0][key], weights[2][key])
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights[0].values())


@pytest.mark.usefixtures("fast")
def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a processor that would not have begun in bf16."""
    whole, halved = (finetune_job(labelled, tmp_path / name) for name in ("whole", "halved"))
    finetune(whole, QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 3)
        with pytest.raises(StoppedError):
            finetune(halved, QUIET)
    for module in (precision, settled):
        monkeypatch.setattr(module, "measure_cpu", lambda: CpuBf16("", 0.5))
    finetune(halved, QUIET)
    assert (halved.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()
    assert facts(halved.run)["precision"] == "bf16"


@pytest.mark.usefixtures("fast")
def test_pretraining_too(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halved = (pretrain_job(crowd, tmp_path / name) for name in ("whole", "halved"))
    pretrain(whole, QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, pretrain_loop, 2)
        with pytest.raises(StoppedError):
            pretrain(halved, QUIET)
    pretrain(halved, QUIET)
    assert (halved.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()
    assert facts(whole.run)["precision"] == "bf16"


@pytest.mark.usefixtures("fast")
def test_processes_that_share_a_pretraining_are_one_to_the_bit(crowd: Path, tmp_path: Path) -> None:
    """A part of a batch is a pass of its own, wherever it is computed."""
    one, two = (pretrain_job(crowd, tmp_path / name) for name in ("one", "two"))
    two.run.mkdir()
    pretrain(one, QUIET)
    assert run_forked(pretrain_loop.train_job, two, processes=2) == [0, 0]
    assert (one.run / CHECKPOINT).read_bytes() == (two.run / CHECKPOINT).read_bytes()


@pytest.mark.usefixtures("fast")
def test_numbers_that_are_lost_name_bf16(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in bf16; last good state") as raised:
        finetune(finetune_job(labelled, tmp_path / "run", "optim.lr=1e30"), QUIET)
    assert raised.value.hint.endswith("or with --force --set precision=float32")
