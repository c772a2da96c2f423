"""The number type of a run, which stays what it was when the run is continued."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lupctl.core.choices import Precision
from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import CpuBf16
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.state import pack_state, plan_precision, settle_precision

FAST, SLOW = CpuBf16("AMX", 4.0), CpuBf16("", 0.4)


def be(patch: pytest.MonkeyPatch, speed: CpuBf16) -> None:
    """Puts another processor in place of this one."""
    patch.setattr(precision, "measure_cpu", lambda: speed)


def save(folder: RunFolder, kind: torch.dtype | None) -> None:
    """A state in that precision, or one of an earlier version."""
    model = nn.Linear(1, 1)
    state = pack_state(2, model, torch.optim.SGD(model.parameters()), precision=kind or torch.float32)
    if kind is None:
        del state["precision"]
    folder.save_state(state)


CHOICE = 'precision: bf16, in products 4.0 times as fast as float32 (AMX); for float32: precision = "float32"'


@pytest.mark.parametrize(
    ("asked", "speed", "kind", "line"),
    [
        ("auto", FAST, torch.bfloat16, CHOICE),
        ("auto", SLOW, torch.float32, ""),
        ("float32", FAST, torch.float32, ""),
        ("bf16", FAST, torch.bfloat16, "precision: bf16"),
    ],
)
def test_a_new_run_takes_what_is_asked_for_and_auto_what_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Precision, speed: CpuBf16, kind: torch.dtype, line: str
) -> None:
    be(monkeypatch, speed)
    found = settle_precision(RunFolder(tmp_path / "run"), asked, "cpu")
    assert (found.kind, found.line) == (kind, line)


def test_bf16_where_it_is_slow_says_how_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, SLOW)
    found = settle_precision(RunFolder(tmp_path), "bf16", "cpu")
    assert found.kind == torch.bfloat16
    assert found.line.endswith("; slow on this processor: no instructions for it, takes 2.5 times as long as float32")


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
    assert plan_precision(folder, "auto", "cpu") == begun
    forced = settle_precision(folder, "auto", "cpu", force=True)
    assert plan_precision(folder, "auto", "cpu", force=True) == forced.kind
    assert forced == settle_precision(RunFolder(tmp_path / "new"), "auto", "cpu")
    assert forced.kind == (torch.bfloat16 if here is FAST else torch.float32)


def test_a_state_of_before_the_type_was_kept_is_float32_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    save(folder, None)
    be(monkeypatch, FAST)
    assert settle_precision(folder, "auto", "cpu").kind == torch.float32
    assert settle_precision(folder, "auto", "cpu", force=True).kind == torch.bfloat16


def test_a_damaged_state_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads it next says that it is damaged."""
    folder = RunFolder(tmp_path)
    save(folder, torch.float32)
    folder.resume.write_bytes(b"x" * 100)
    be(monkeypatch, FAST)
    assert settle_precision(folder, "auto", "cpu").kind == torch.bfloat16
