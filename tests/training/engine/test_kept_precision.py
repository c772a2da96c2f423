"""The number type of a run, which stays what it was when the run is continued."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lupctl.core.choices import Precision
from lupctl.core.system.jobs.precision import CpuBf16
from lupctl.core.training.engine import state
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.state import pack_state, settle_precision

FAST, SLOW = CpuBf16("AMX", 4.0), CpuBf16("", 0.4)


def be(patch: pytest.MonkeyPatch, speed: CpuBf16) -> None:
    """Puts another processor in place of this one."""
    patch.setattr(state, "measure_cpu", lambda: speed)


def save(folder: RunFolder, kind: torch.dtype | None) -> None:
    """A state in that precision, or one of an earlier version."""
    model = nn.Linear(1, 1)
    state = pack_state(2, model, torch.optim.SGD(model.parameters()), precision=kind or torch.float32)
    if kind is None:
        del state["precision"]
    folder.save_state(state)


@pytest.mark.parametrize(
    ("asked", "kind"), [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_new_run_takes_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Precision, kind: torch.dtype
) -> None:
    be(monkeypatch, FAST)
    found = settle_precision(RunFolder(tmp_path / "run"), asked, "cpu")
    assert (found.kind, found.line) == (kind, "precision: bf16" if asked == "bf16" else "")


def test_bf16_where_it_is_slow_says_how_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, SLOW)
    found = settle_precision(RunFolder(tmp_path), "bf16", "cpu")
    assert found.kind == torch.bfloat16
    assert found.line.endswith("; slow on this processor: 0.4 times as fast as float32 (no instructions for it)")


@pytest.mark.parametrize(("begun", "here"), [(torch.bfloat16, SLOW), (torch.float32, FAST)])
def test_a_run_continues_in_what_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: torch.dtype, here: CpuBf16
) -> None:
    """On another processor, or after a version in which auto meant something else."""
    folder = RunFolder(tmp_path)
    save(folder, begun)
    be(monkeypatch, here)
    found = settle_precision(folder, "auto", "cpu")
    assert found.kind == begun
    assert ("as the run began" in found.line) == (begun == torch.bfloat16)
    assert ("slow on this processor" in found.line) == (here is SLOW)
    forced = settle_precision(folder, "auto", "cpu", force=True)
    assert (forced.kind, forced.line) == (torch.float32, "")


@pytest.mark.parametrize("spoil", [False, True])
def test_a_state_that_says_nothing(tmp_path: Path, spoil: bool) -> None:
    """One of before the type was kept; and a damaged one, of which what reads it next says that it is."""
    folder = RunFolder(tmp_path)
    save(folder, None)
    if spoil:
        folder.resume.write_bytes(b"x" * 100)
    assert settle_precision(folder, "auto", "cpu") == settle_precision(RunFolder(tmp_path / "new"), "auto", "cpu")
