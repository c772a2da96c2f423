"""`lupctl doctor --exercise` as it is typed."""

import os
import subprocess
from pathlib import Path

import pytest

from lupctl.core.stages.exercise.check import Outcome, SkippedError, Trial, WrongError
from tests.tools.shell import Shell


def fail(left_s: float) -> Outcome:
    raise WrongError("off by [1]\x1b[2J")


def skip(left_s: float) -> Outcome:
    raise SkippedError("no GPU")


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """What is tried, in the place of all that takes a minute; the first one stands for decoding."""
    found = [
        Trial("decoding", lambda left_s: Outcome("right", "10 images/s", {"images_per_s": 10.0})),
        Trial("ranks", skip),
    ]
    monkeypatch.setattr("lupctl.core.stages.exercise.run.list_trials", lambda *given: found)
    monkeypatch.setattr("lupctl.core.stages.exercise.compiling.compile_trials", lambda *given: [])
    monkeypatch.setattr(
        "lupctl.core.flows.machine.exercise._train", lambda *given: Outcome("a step runs", "3 images/s")
    )
    return found


def test_all_is_well(lupctl: Shell, trials: list[Trial]) -> None:
    ran = lupctl("doctor --exercise")
    assert (ran.code, ran.err) == (0, "")
    rows = {line.split("  ")[1].strip(): line for line in ran.out.splitlines() if line.startswith("  ")}
    assert "ok" in rows["decoding"]
    assert "10 images/s" in rows["decoding"]
    assert "skipped" in rows["ranks"]
    assert "no GPU" in rows["ranks"]
    assert "3 images/s" in rows["training, small-bot"]
    assert "JPEG decoder" in rows  # what doctor shows is still there
    ran = lupctl("doctor --exercise --json")
    assert ran.json["schema"] == "lupctl.doctor/1"
    assert ran.json["findings"]
    assert ran.json["checks"][0] == {
        "what": "decoding", "result": "right", "figure": "10 images/s", "status": "ok",
        "numbers": {"images_per_s": 10.0},
    }  # fmt: skip
    assert [check["status"] for check in ran.json["checks"]] == ["ok", "ok", "skipped"]
    assert "checks" not in lupctl("doctor --json").json


def test_one_fails(lupctl: Shell, trials: list[Trial]) -> None:
    trials[1] = Trial("ranks, cuda:1", fail)
    ran = lupctl("doctor --exercise")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "error: ranks, cuda:1: failed"
    assert ran.err.splitlines()[1].startswith("hint: ")
    assert "off by [1]" in ran.out  # no markup, and no control characters
    assert "\x1b" not in ran.out
    ran = lupctl("doctor --exercise --json")
    assert (ran.code, ran.json["checks"][2]["status"]) == (1, "failed")
    trials.append(Trial("cosines", fail))
    assert lupctl("doctor --exercise").err.startswith("error: 2 checks failed: ranks, cuda:1")


@pytest.mark.slow
def test_a_minute_leaves_nothing(lupctl: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, on this machine: nothing fails, no file is left, and no process."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ran = lupctl("doctor --exercise --json")
    assert ran.code == 0, [check for check in ran.json["checks"] if check["status"] == "failed"]
    assert {"ok", "skipped"} >= {check["status"] for check in ran.json["checks"]}
    assert sum(check["status"] == "ok" for check in ran.json["checks"]) >= 10
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["temporary"]
    asked = ["ps", "-o", "args=", "--ppid", str(os.getpid())]
    children = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in children if "resource_tracker" not in line and not line.startswith("ps ")] == []
