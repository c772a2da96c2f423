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
from lupctl.core.stages.pretrain import step
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from tests.tools.tiny.training import finetune_job, pretrain_job, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"


BF16 = "precision=bf16"


def facts(run: Path) -> dict[str, object]:
    return json.loads((run / "run.json").read_text())


def test_a_run_says_what_it_was_computed_in(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half, auto = finetune_job(labelled, tmp_path / "half", BF16), finetune_job(labelled, tmp_path / "auto")
    finetune(half, Progress())
    assert "precision: bf16; slow on this processor: " in capsys.readouterr().err
    finetune(auto, QUIET)
    assert [facts(job.run)["precision"] for job in (half, auto)] == ["bf16", "float32"]
    one, other = (load_file(job.run / CHECKPOINT) for job in (half, auto))
    key = "backbone.layer4.1.conv2.weight"
    assert not torch.equal(one[key], other[key])
    assert all(value.dtype in (torch.float32, torch.int64) for value in one.values())


def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halved = (finetune_job(labelled, tmp_path / name, BF16) for name in ("whole", "halved"))
    finetune(whole, QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 3)
        with pytest.raises(StoppedError):
            finetune(halved, QUIET)
    finetune(halved, QUIET)
    assert (halved.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()
    assert facts(halved.run)["precision"] == "bf16"


def test_pretraining_too(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halved = (pretrain_job(crowd, tmp_path / name, BF16) for name in ("whole", "halved"))
    pretrain(whole, QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, step, 2)
        with pytest.raises(StoppedError):
            pretrain(halved, QUIET)
    pretrain(halved, QUIET)
    assert (halved.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()
    assert facts(whole.run)["precision"] == "bf16"


def test_processes_that_share_a_pretraining_are_one_to_the_bit(crowd: Path, tmp_path: Path) -> None:
    """A part of a batch is a pass of its own, wherever it is computed."""
    one, two = (pretrain_job(crowd, tmp_path / name, BF16) for name in ("one", "two"))
    two.run.mkdir()
    pretrain(one, QUIET)
    assert run_forked(pretrain_loop.train_job, two, processes=2) == [0, 0]
    assert (one.run / CHECKPOINT).read_bytes() == (two.run / CHECKPOINT).read_bytes()


def test_numbers_that_are_lost_name_bf16(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in bf16; last good state") as raised:
        finetune(finetune_job(labelled, tmp_path / "run", BF16, "optim.lr=1e30"), QUIET)
    assert raised.value.hint.endswith("or with --force --set precision=float32")
