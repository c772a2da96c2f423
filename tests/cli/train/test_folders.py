"""Which folder a training command means: its own, that of the same recipe before, or a new one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.resolve.training.folders import choose_run
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options, signal_at

PRE = f"pretrain --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))}"
FINE = f"finetune --recipe bot --from scratch --gpus 0 --workers 0 {' '.join(as_options(FINETUNE))}"


def tables(rate: float) -> dict[str, Any]:
    return {"recipe": {"lr": rate}, "inputs": {"pack:a": "sha256:1"}}


def make(path: Path, rate: float, *, is_finished: bool) -> None:
    """A run's folder with the recipe of a rate."""
    folder = RunFolder(path)
    folder.write_setup(tables(rate), f"lr = {rate}\n")
    if is_finished:
        folder.checkpoint.write_bytes(b"weights")
        folder.write_facts({"command": "pretrain"})


def choose(base: Path, rate: float, *, force: bool = False) -> str:
    return choose_run(base, lambda: tables(rate), force=force, progress=Progress()).name


def test_a_name_is_free_taken_or_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "run"
    assert choose(base, 1) == "run"
    make(base, 1, is_finished=True)
    assert choose(base, 1) == "run"
    assert capsys.readouterr().err == ""
    assert choose(base, 2) == "run-2"
    assert capsys.readouterr().err == f"run: {base}-2 (new: {base} is finished, with recipe.lr = 1, not 2)\n"
    make(tmp_path / "run-2", 2, is_finished=False)
    assert choose(base, 2) == "run-2", "it continues"
    assert choose(base, 3) == "run-2", "which refuses: it is not finished"
    assert choose(base, 1) == "run"
    make(tmp_path / "run-2", 2, is_finished=True)
    assert choose(base, 3) == "run-3"
    make(tmp_path / "run-10", 10, is_finished=True)
    assert (choose(base, 10), choose(base, 3)) == ("run-10", "run-3")
    (tmp_path / "run-3").mkdir()
    assert choose(base, 3) == "run-4", "what is in it is not known"
    for other in ("run-x", "run-3-from-y", "my-run-2", "run2"):
        make(tmp_path / other, 7, is_finished=True)
    assert choose(base, 7) == "run-4"


def test_force_starts_over_what_would_be_refused_or_the_first(tmp_path: Path) -> None:
    base = tmp_path / "run"
    make(base, 1, is_finished=True)
    assert choose(base, 2, force=True) == "run"
    make(tmp_path / "run-2", 2, is_finished=False)
    assert choose(base, 2, force=True) == "run-2"
    assert choose(base, 3, force=True) == "run-2"


def test_a_stopped_run_in_the_way_is_chosen_and_refused(tmp_path: Path) -> None:
    base = tmp_path / "run"
    make(base, 1, is_finished=False)
    assert choose(base, 2) == "run"


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_finished_run_is_kept_and_a_changed_recipe_gets_a_new_name(
    lupctl: Shell, crowd: Path, labelled: Path, stage: str
) -> None:
    line = f"{PRE} {crowd}" if stage == "pretrain" else f"{FINE} {labelled}"
    first = lupctl(f"{line} --epochs 1")
    assert first.code == 0, first.err
    run = Path(first.out.splitlines()[-1])
    before = (run / "checkpoint.safetensors").read_bytes()
    second = lupctl(f"{line} --epochs 1 --lr 0.01")
    assert second.code == 0, second.err
    assert second.out.splitlines()[-1] == f"{run}-2"
    assert f"run: {run}-2 (new: {run} is finished, with recipe.optim.lr = " in second.err
    assert (run / "checkpoint.safetensors").read_bytes() == before
    again = lupctl(f"{line} --epochs 1 --lr 0.01")
    assert f"{run}-2: already finished" in again.err
    assert lupctl(f"{line} --epochs 1").out.splitlines()[-1] == f"{run}"
    assert sorted(path.name for path in run.parent.iterdir()) == [run.name, f"{run.name}-2"]
    named = lupctl(f"{line} --epochs 1 --lr 0.02 --out {run}")
    assert named.code == 2
    assert f"error: {run}: contains a run with recipe.optim.lr = " in named.err


def test_a_stopped_successor_is_continued(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lupctl(f"{PRE} {crowd}").code == 0
    changed = f"{PRE} {crowd} --lr 0.05"
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 2)
        assert lupctl(changed).code == 75
    run = tmp_path / "lup/runs/pretrain-moco-r18-crowd-2"
    assert (run / "resume.pt").is_file()
    other = lupctl(f"{PRE} {crowd} --lr 0.06")
    assert other.code == 2
    assert "pretrain-moco-r18-crowd-2: contains a run with recipe.optim.lr = 0.05, but now it is 0.06" in other.err
    ran = lupctl(changed)
    assert ran.code == 0, ran.err
    assert "lup/runs/pretrain-moco-r18-crowd-2: continuing" in ran.err
    assert ran.out == "lup/runs/pretrain-moco-r18-crowd-2\n"
    assert lupctl(f"{changed} --out whole").code == 0
    assert (run / "checkpoint.safetensors").read_bytes() == Path("whole/checkpoint.safetensors").read_bytes()


def test_a_pack_that_was_made_again_gets_a_new_run(lupctl: Shell, labelled: Path, crowd: Path, tmp_path: Path) -> None:
    pack = tmp_path / "a.h5"
    shutil.copy(crowd, pack)
    assert lupctl(f"{PRE} {pack} --epochs 1").code == 0
    shutil.copy(labelled, pack)
    ran = lupctl(f"{PRE} {pack} --epochs 1")
    assert ran.code == 0, ran.err
    assert ran.out == "lup/runs/pretrain-moco-r18-a-2\n"
    assert "lup/runs/pretrain-moco-r18-a is finished, with inputs.pack:" in ran.err
