"""`lupctl run list`, `show` and `rm`: what they say, what they refuse, and what they leave."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lupctl.core.errors import StoppedError
from lupctl.core.stages.finetune import loop as finetune_loop
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.runs import list_runs, read_summary, remove_run
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import LOCK_NAME, RunFolder
from lupctl.core.workspace import Workspace
from tests.tools.lock_holders import lock_holders
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, as_options, finetune_job, pretrain_job, signal_at

QUIET = Progress(quiet=True)
FINE = f"finetune --recipe bot {' '.join(as_options(FINETUNE))}"
RUNS = Path("lup/runs")


@pytest.fixture
def holder() -> Iterator[Callable[[Path], None]]:
    """Starts processes that hold runs, and ends them."""
    with lock_holders() as hold:
        yield lambda run: hold(run / LOCK_NAME)


@pytest.fixture(scope="module")
def made(crowd: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training, a fine-tuning from it, and one that was stopped at step 2 of 12."""
    runs = tmp_path_factory.mktemp("made") / RUNS
    pretrain(pretrain_job(crowd, runs / "pre"), QUIET)
    begun = runs / "pre" / "checkpoint.safetensors"
    for name, persons in (("fine", 4), ("half", 2)):
        settings = (f"data.persons={persons}", 'data.packs=["labelled"]')
        job = finetune_job(labelled, runs / name, *settings, start=begun)
        words = shlex.split(f"lupctl {FINE} {labelled} --from pre --set data.persons={persons}")
        job = replace(job, command=tuple(words))
        with pytest.MonkeyPatch.context() as patch:
            if name == "fine":
                finetune(job, QUIET)
                continue
            signal_at(patch, finetune_loop, 2)
            with pytest.raises(StoppedError):
                finetune(job, QUIET)
    for second, name in enumerate(("pre", "fine", "half")):
        for path in (runs / name).iterdir():
            os.utime(path, (1_700_000_000 + second, 1_700_000_000 + second))
    return runs


@pytest.fixture
def three(lupctl: Shell, made: Path) -> Shell:
    """Types commands where these runs are in the workspace."""
    shutil.copytree(made, RUNS)
    return lupctl


def test_the_list_says_how_far_every_run_is(three: Shell, holder: Any) -> None:
    ran = three("run list --json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["schema"] == "lupctl.runs/1"
    rows = {row["name"]: row for row in ran.json["runs"]}
    assert [row["name"] for row in ran.json["runs"]] == ["half", "fine", "pre"], "newest first"
    assert {name: (row["stage"], row["network"], row["state"], row["data"]) for name, row in rows.items()} == {
        "pre": ("pretrain", "r18 moco", "finished", ["crowd"]),
        "fine": ("finetune", "r18 bnneck", "finished", ["labelled"]),
        "half": ("finetune", "r18 bnneck", "stopped", ["labelled"]),
    }
    steps = torch.load(RUNS / "half/resume.pt", weights_only=True)["step"]
    assert (rows["half"]["step"], rows["half"]["steps"]) == (steps, 12) == (2, 12)
    assert (rows["fine"]["step"], rows["fine"]["steps"]) == (6, 6)
    facts = json.loads((RUNS / "fine/run.json").read_text())
    assert rows["fine"]["scores"] == facts["scores"]
    for name, row in rows.items():
        assert row["bytes"] == sum(path.stat().st_size for path in (RUNS / name).rglob("*") if path.is_file())
        assert row["changed_at"].endswith("Z")
    table = three("run list").out
    assert f"{100 * facts['scores']['map']:.2f}" in table
    assert "stopped at step 2 of 12" in table
    holder(RUNS / "half")
    assert "running, step 2 of 12" in three("run list").out


def test_a_narrow_list_has_two_lines_a_run(three: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lupctl.cli.run.WIDEST", 60)
    lines = three("run list").out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["half", "fine", "pre"]
    assert lines[1].startswith("  stopped at step 2 of 12; r18 bnneck on labelled; ")
    assert re.fullmatch(
        r"  finished; r18 bnneck on labelled; mAP [\d.]+; rank-1 [\d.]+; [\d.]+ KiB; \d+ d old", lines[3]
    )


def test_an_empty_workspace_has_no_runs(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("run list --json")
    assert (ran.code, ran.json["runs"]) == (0, [])
    ran = lupctl("run list")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "lup/runs: no runs yet; lupctl pretrain and lupctl finetune make them\n"
    assert list(tmp_path.iterdir()) == []


def test_damage_is_listed_and_no_error(three: Shell) -> None:
    (RUNS / "fine/run.json").write_text("{")
    (RUNS / "pre/recipe.toml").write_text("[")
    (RUNS / "half/resume.pt").write_text("no state")
    (RUNS / "nothing").mkdir()
    (RUNS / "notes.txt").write_text("no run")
    states = {row["name"]: (row["state"], row["step"]) for row in three("run list --json").json["runs"]}
    assert states == {
        "fine": ("damaged", None), "pre": ("damaged", 4), "half": ("stopped", None), "nothing": ("empty", None),
    }  # fmt: skip
    assert "stopped before it saved anything" in three("run list").out
    assert three("run show pre").code == 3


def test_a_run_shows_what_it_is(three: Shell, crowd: Path, labelled: Path) -> None:
    ran = three("run show fine")
    assert (ran.code, ran.err) == (0, "")
    for words in (
        "bag of tricks on R18, width 4", "32 x 16", "12 images: 4 persons with 3 images each", "adam, rate 0.003",
        "labelled (sha256:", "pre (sha256:", "checkpoint.safetensors", "lupctl finetune --recipe bot",
    ):  # fmt: skip
        assert words in ran.out, words
    assert re.search(r"scores +mAP \d+\.\d\d, mAP official \d+\.\d\d, mINP \d+\.\d\d, rank-1 \d", ran.out)
    found = three("run show fine --json").json
    assert found["schema"] == "lupctl.run/1"
    assert set(found["inputs"]) == {"pack:labelled", "start"}
    assert found["recipe"]["optim"]["lr"] == 3e-3
    assert dict(map(tuple, found["files"]))["run.json"] == (RUNS / "fine/run.json").stat().st_size
    assert three("run show pre --json").json["children"] == ["half", "fine"]
    assert three(f"run show {RUNS}/pre --json").json["summary"]["name"] == "pre"


def test_a_stopped_run_knows_the_command_that_continues_it(three: Shell) -> None:
    out = three("run show half").out
    assert "continue with" in out
    command = three("run show half --json").json["command"]
    line = shlex.split(f"{command} --out {RUNS}/half --gpus 0 --workers 0")
    assert f"--out {RUNS}/half" in " ".join(out.split())
    ran = three(shlex.join(line[1:]))
    assert ran.code == 0, ran.err
    assert f"{RUNS}/half: continuing" in ran.err
    assert read_summary(RUNS / "half").state == "finished"


def test_removing_asks_and_says_what_depends_on_it(three: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = three("run rm pre")
    assert refused.code == 2
    assert refused.err == (
        f"error: {RUNS}/pre: {RUNS}/half is stopped and needs it to continue\n"
        "hint: finish that one first, or remove both: lupctl run rm pre half\n"
    )
    ran = three("run rm pre half")
    assert ran.code == 2
    assert f"{RUNS}/pre: fine began or learned from it, and can be used without it" in ran.err
    assert ran.err.splitlines()[-2].startswith("error: removing 2 runs, ")
    assert ran.err.splitlines()[-1] == "hint: lupctl run rm pre half --yes"
    assert {path.name for path in RUNS.iterdir()} == {"pre", "half", "fine"}
    dry = three("run rm pre half --dry-run --json")
    assert (dry.code, dry.json["schema"], dry.json["runs"]) == (
        0, "lupctl.run-rm-plan/1", [f"{RUNS}/pre", f"{RUNS}/half"],
    )  # fmt: skip
    assert {path.name for path in RUNS.iterdir()} == {"pre", "half", "fine"}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda question, *, err: False)
    assert three("run rm pre half").code == 130
    assert {path.name for path in RUNS.iterdir()} == {"pre", "half", "fine"}
    monkeypatch.setattr("typer.confirm", lambda question, *, err: question.startswith("remove 2 runs, "))
    assert three("run rm pre half").code == 0
    assert {path.name for path in RUNS.iterdir()} == {"fine"}
    assert three("run show fine").code == 0
    gone = three("run rm pre --yes")
    assert gone.code == 3
    assert "no run 'pre' in lup/runs" in gone.err


def test_a_run_in_use_is_not_removed(three: Shell, holder: Any) -> None:
    holder(RUNS / "fine")
    ran = three("run rm fine half --yes")
    assert ran.code == 3
    assert f"error: {RUNS}/fine: another lupctl is training into this folder" in ran.err
    assert {path.name for path in RUNS.iterdir()} == {"pre", "half", "fine"}


def test_only_runs_are_removed(three: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/report.html").write_text("mine")
    for name in ("mine", ".", "..", "lup", "lup/runs", "/", str(tmp_path), "../runs", "fien"):
        ran = three(f"run rm {name} --yes")
        assert ran.code == 3, name
        assert f"error: no run {name!r}" in ran.err
    assert ran.err.endswith("hint: did you mean fine?\n")
    assert (tmp_path / "mine/report.html").is_file()
    assert {path.name for path in RUNS.iterdir()} == {"pre", "half", "fine"}


def test_what_is_not_lupctls_stays(three: Shell, tmp_path: Path) -> None:
    (RUNS / "fine/notes.txt").write_text("mine")
    (RUNS / "fine/more").mkdir()
    (RUNS / "fine/more/own.png").write_text("mine")
    (RUNS / "fine/labelled.features.h5").write_text("features")
    ran = three("run rm fine --yes")
    assert ran.code == 0, ran.err
    assert f"{RUNS}/fine/notes.txt: not lupctl's; it stays" in ran.err
    left = sorted(str(path.relative_to(RUNS / "fine")) for path in (RUNS / "fine").rglob("*"))
    assert left == ["more", "more/own.png", "notes.txt"]


def test_links_are_removed_and_not_followed(three: Shell, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "photo.jpg").write_text("mine")
    (RUNS / "fine/tensorboard").symlink_to(far)
    (RUNS / "fine/labelled.features.h5").symlink_to(far / "photo.jpg")
    (RUNS / "half").rename(tmp_path / "big")
    (RUNS / "half").symlink_to(tmp_path / "big")
    row = next(row for row in three("run list --json").json["runs"] if row["path"].endswith("half"))
    assert (row["state"], row["bytes"] > 1000) == ("stopped", True)
    ran = three("run rm fine half --yes")
    assert ran.code == 0, ran.err
    assert [path.name for path in RUNS.iterdir()] == ["pre"]
    assert (far / "photo.jpg").read_text() == "mine"
    assert (tmp_path / "big/resume.pt").is_file()


KILLED_STEPS = ["pathlib.Path.rename", "shutil.rmtree"]


@pytest.mark.parametrize("step", KILLED_STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_killed_removal_leaves_no_half_run(
    three: Shell, monkeypatch: pytest.MonkeyPatch, step: str, when: str, foreign: bool
) -> None:
    """The step fails as if the process had ended there; what is left is a whole run or none, and goes the next time."""
    import pathlib
    import shutil

    if foreign:
        (RUNS / "fine/notes.txt").write_text("mine")
    real = pathlib.Path.rename if step.startswith("pathlib") else shutil.rmtree

    def die(*given: Any, **more: Any) -> None:
        if when == "after":
            real(*given, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, die)
        with pytest.raises(KeyboardInterrupt):
            remove_run(RUNS / "fine")
    run = RunFolder(RUNS / "fine")
    is_whole = run.is_finished() and run.has_begun()
    assert is_whole or not run.is_finished()
    assert is_whole == (step == "pathlib.Path.rename" and when == "before")
    assert [found.name for found in list_runs(Workspace(Path("lup"))) if found.state == "finished"] == (
        ["fine", "pre"] if is_whole else ["pre"]
    )
    if (RUNS / "fine").exists():
        assert three("run rm fine --yes").code == 0
    else:
        assert three("run rm half --yes").code == 0
    hidden = [path for path in RUNS.rglob(".*") if path.name != ".lock"]
    assert hidden == []
