"""The number type of a run, which stays what it was when the run is continued."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import CpuBf16
from lupctl.core.training.engine import settled
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.settled import settle_precision
from lupctl.core.training.engine.state import pack_state

FAST, SLOW = CpuBf16("AMX", 4.0), CpuBf16("", 0.4)


def be(patch: pytest.MonkeyPatch, speed: CpuBf16) -> None:
    """Puts another processor in place of this one."""
    for module in (precision, settled):
        patch.setattr(module, "measure_cpu", lambda: speed)


def save(folder: RunFolder, kind: torch.dtype | None) -> None:
    """A state in that precision, or one of an earlier version."""
    model = nn.Linear(1, 1)
    state = pack_state(2, model, torch.optim.SGD(model.parameters()), precision=kind or torch.float32)
    if kind is None:
        del state["precision"]
    folder.save_state(state)


def test_a_new_run_takes_what_the_processor_does_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    be(monkeypatch, FAST)
    found = settle_precision(folder, "auto", "cpu")
    assert found.kind == torch.bfloat16
    assert found.line.startswith("precision: bf16, 4.0 times as fast as float32 (AMX); --set precision=float32 ")
    be(monkeypatch, SLOW)
    found = settle_precision(folder, "auto", "cpu")
    assert (found.kind, found.line) == (
        torch.float32, "precision: float32 (bf16: 0.4 times as fast as float32 (no instructions for it))"
    )  # fmt: skip


def test_bf16_on_request_where_it_is_slow_says_how_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, SLOW)
    found = settle_precision(RunFolder(tmp_path), "bf16", "cpu")
    assert found.kind == torch.bfloat16
    assert found.line.endswith("slow on this processor: 0.4 times as fast as float32 (no instructions for it)")


@pytest.mark.parametrize(("begun", "here"), [(torch.bfloat16, SLOW), (torch.float32, FAST)])
def test_a_run_continues_in_what_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: torch.dtype, here: CpuBf16
) -> None:
    """On another processor, which would not have begun in it."""
    folder = RunFolder(tmp_path)
    save(folder, begun)
    be(monkeypatch, here)
    found = settle_precision(folder, "auto", "cpu")
    assert found.kind == begun
    assert "as the run began" in found.line
    assert ("slow on this processor" in found.line) == (here is SLOW)
    assert settle_precision(folder, "auto", "cpu", force=True).kind != begun


def test_runs_of_before_were_in_float32_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder := RunFolder(tmp_path), None)
    be(monkeypatch, FAST)
    assert settle_precision(folder, "auto", "cpu").kind == torch.float32


def test_a_damaged_state_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads it next says that it is damaged."""
    folder = RunFolder(tmp_path)
    folder.resume.write_bytes(b"x" * 100)
    be(monkeypatch, FAST)
    assert settle_precision(folder, "auto", "cpu").kind == torch.bfloat16
