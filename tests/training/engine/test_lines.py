"""What a training says where no bar shows it: a line a minute, one at the end, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine import log as log_module
from lupctl.core.training.engine.curves import even_epochs
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.runs import RunFolder, read_last_row


class _Bar:
    def advance(self, count: int = 1, *, note: str = "") -> None:
        return

    def grow(self, count: int) -> None:
        raise AssertionError("a run's length is known")


class _Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs a loop whose steps take given seconds; gives the lines that it says."""

    def run(seconds: float, *, total: int, start: int = 0, terminal: bool = False, quiet: bool = False) -> list[str]:
        clock = _Clock()
        monkeypatch.setattr(log_module, "time", clock)
        monkeypatch.setattr("lupctl.core.training.engine.meters.time", clock)
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
        log = LoopLog(
            RunFolder(tmp_path), start=start, total=total, batch=8, epochs=even_epochs(4, 100), is_writer=True,
            progress=Progress(quiet=quiet),
        )  # fmt: skip
        for step in range(start, total):
            log.meter.wait()
            log.meter.work()
            clock.now += seconds
            log.add(loss=torch.tensor(float(step)))
            log.write_step(step + 1, rate=0.5 / (step + 1), is_due=False, bar=_Bar())
        log.close()
        return capsys.readouterr().err.splitlines()

    return run


def test_a_short_run_says_one_line_at_its_end(train: Callable[..., list[str]], tmp_path: Path) -> None:
    lines = train(0.5, total=12)
    assert lines == ["step 12 of 12: loss 10.500, lr 0.042, 16 images/s, waiting for data 0%, took 6 s"]
    row = read_last_row(tmp_path)
    assert (row["step"], row["steps"], row["images_per_s"]) == (12, 12, 16.0)


def test_a_long_run_says_one_a_minute(train: Callable[..., list[str]]) -> None:
    lines = train(1.0, total=300)
    assert [int(line.split()[1]) for line in lines] == [60, 120, 180, 240, 300]
    assert lines[0] == "step 60 of 300: loss 54.500, lr 0.0083, 8 images/s, waiting for data 0%, 4 min left"
    assert lines[-1].endswith("took 5 min")


def test_steps_longer_than_a_minute_have_a_line_each(train: Callable[..., list[str]]) -> None:
    lines = train(90.0, total=12)
    assert [int(line.split()[1]) for line in lines] == list(range(1, 13))
    assert lines[0] == "step 1 of 12: lr 0.5, 0 images/s, 16 min left", "the loss is not read before the tenth step"
    assert lines[9] == "step 10 of 12: loss 4.500, lr 0.05, 0 images/s, waiting for data 0%, 3 min left"
    assert re.fullmatch(r"step 12 of 12: loss 10\.500, .*, took 18 min", lines[-1])


def test_a_continued_run_counts_its_own_steps(train: Callable[..., list[str]]) -> None:
    lines = train(2.0, total=100, start=60)
    assert [int(line.split()[1]) for line in lines] == [90, 100]
    assert lines[0].endswith("4 images/s, waiting for data 0%, 20 s left")
    assert lines[1].endswith("took 80 s") or lines[1].endswith("took 1 min")


@pytest.mark.parametrize("silent", [{"terminal": True}, {"quiet": True}])
def test_a_terminal_has_a_bar_and_quiet_nothing(train: Callable[..., list[str]], silent: dict[str, bool]) -> None:
    assert train(30.0, total=20, **silent) == []
