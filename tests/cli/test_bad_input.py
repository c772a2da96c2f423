"""What goes wrong for users, typed as they would type it: the message, the hint, the code, and nothing left behind."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options, pretrain_job, read_state, signal_at

QUIET = Progress(quiet=True)
TINY = " ".join(as_options(PRETRAIN))


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        # A workspace that is not there.
        ("pretrain", 3, "lup/packs: no unlabelled pack to pre-train on", "put images under raw/NAME of the workspace"),
        ("finetune market1501", 3, "no pack of 'market1501': neither a file of that name nor lup/packs/market1501.h5",
         "lupctl data download market1501 gets it or says how; or put the images under lup/raw/market1501"),
        ("dump", 3, "lup/runs: no finished run", "lupctl demo makes some"),
        ("eval", 3, "no finished fine-tuning run in lup/runs", "lupctl demo makes some"),
        ("data pack", 3, "no raw data: lup/raw does not exist", "put images under lup/raw/NAME"),
        # Packs.
        ("pretrain --data gone", 3, "no pack of 'gone'", "lup/raw/gone"),
        ("pretrain --data {crowd} --data gone.h5", 3, "no pack of 'gone.h5'", ""),
        ("pretrain --data market-1501", 3, "no pack of 'market-1501'",
         "did you mean market1501? lupctl data download market1501 gets it"),
        ("pretrain --data synthetic", 3, "no pack of 'synthetic'", "lupctl data pack synthetic"),
        ("data info gone", 3, "no pack of 'gone'", "lup/raw/gone"),
        # Recipes.
        ("pretrain --recipe gone", 2, "no pretrain recipe 'gone'", "lupctl recipe list"),
        ("pretrain --recipe gone.toml", 2, "gone.toml: no such recipe file", "lupctl recipe list"),
        ("pretrain --recipe bot", 2, "no pretrain recipe 'bot': it is a recipe for lupctl finetune",
         "lupctl finetune --recipe bot"),
        ("pretrain --set optim.rl=1", 2, "unknown recipe key 'optim.rl'; did you mean 'optim.lr'?",
         "--set optim.lr=1"),
        ("pretrain --set optim.lr=big", 2, "optim.lr: input should be a valid number, got 'big'", "lupctl recipe show"),
        ("pretrain --set optim.lr", 2, "--set optim.lr: expected KEY=VALUE", "for example --set optim.lr=0.1"),
        ("recipe show wxyz", 2, "no recipe 'wxyz'", "lupctl recipe list"),
        # Runs and starts.
        ("finetune {labelled}", 3, "lup/runs: no finished pre-training run of r50 to start from",
         "lupctl pretrain --arch r50, or choose --from imagenet or --from scratch"),
        ("finetune {labelled} --from gone", 3, "no checkpoint 'gone': neither a file, nor a run's folder, nor a",
         "lupctl demo makes some"),
        ("finetune {labelled} --from imagnet", 3, "no checkpoint 'imagnet'", "did you mean imagenet?"),
        ("finetune {labelled} --from luperson-r50", 3, "no checkpoint 'luperson-r50'",
         "lupctl model download luperson-r50 --accept-terms"),
        ("finetune {labelled} --from {labelled}", 3, "labelled.h5: a pack or features; a run or a checkpoint",
         "--from scratch"),
        ("eval gone", 3, "gone: neither a file, nor a folder, nor a run", "lupctl demo makes some"),
        ("eval market1501", 3, "market1501: a dataset; a run or a features file was expected",
         "lupctl finetune market1501"),
        # Data of the wrong kind.
        ("finetune {crowd} --from scratch", 3, "0 labelled training images of 0 persons", "lupctl data info"),
        ("pretrain --data {text}", 3, "text.h5: ", ""),
        # Devices.
        ("pretrain --gpus 8 --data {crowd}", 5, "--gpus 8: this machine has 0 visible CUDA devices", "--gpus 0"),
        # Places that cannot be.
        ("pretrain --data {crowd} --gpus 0 --out {text} " + TINY, 3, "text.h5: cannot be written (File exists)",
         "--out"),
        ("pretrain --data {crowd} --gpus 0 --out {text}/run " + TINY, 3, "cannot be written (Not a directory)",
         "--out"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_a_hint(
    lupctl: Shell, crowd: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    line: str, code: int, message: str, hint: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    text = tmp_path / "text.h5"
    text.write_text("I am no pack")
    ran = lupctl(line.format(crowd=crowd, labelled=labelled, text=text))
    assert ran.code == code, ran.err
    before, _, last = ran.err.rstrip("\n").rpartition("\nhint: ")
    said = before.splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said
    assert hint in last
    assert len(last) > 5
    assert "\n" not in last
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["text.h5"], "nothing was made"


def test_two_unlabelled_packs_want_a_choice(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    packs = tmp_path / "lup" / "packs"
    packs.mkdir(parents=True)
    shutil.copy(crowd, packs / "a.h5")
    ran = lupctl(f"pretrain --dry-run --gpus 0 {TINY}")
    assert ran.code == 0
    assert "data: lup/packs/a.h5 (the only unlabelled pack here)" in ran.err
    shutil.copy(crowd, packs / "b.h5")
    ran = lupctl("pretrain --gpus 0")
    assert ran.code == 3
    assert "lup/packs: 2 unlabelled packs (a, b)\nhint: choose one or more: --data a" in ran.err


def test_a_workspace_with_labelled_packs_alone_says_so(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    packs = tmp_path / "lup" / "packs"
    packs.mkdir(parents=True)
    shutil.copy(labelled, packs / "market1501.h5")
    ran = lupctl("pretrain --gpus 0")
    assert ran.code == 3
    assert "no unlabelled pack to pre-train on (labelled: market1501)" in ran.err
    assert "hint: --data market1501 trains on its training images" in ran.err
    assert lupctl(f"pretrain --gpus 0 --data market1501 --dry-run {TINY}").code == 0


def test_a_changed_recipe_is_refused_by_the_first_key(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 2)
        stopped = lupctl(f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {TINY}")
    assert stopped.code == 75
    assert "error: stopped on request after step 2 of 4; the run can be continued" in stopped.err
    line = f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {TINY} --set moco.temperature=0.2 --set seed=5"
    ran = lupctl(line)
    assert ran.code == 2
    assert "error: run: contains a run with recipe.seed = 1, but now it is 5" in ran.err
    assert "hint: continue with the old value, name another --out, or start over with --force" in ran.err
    assert read_state(tmp_path / "run")["step"] == 2
    assert lupctl(f"{line} --force").code == 0


def test_the_start_of_another_architecture_is_refused_by_name(
    lupctl: Shell, crowd: Path, labelled: Path, tmp_path: Path
) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "lup" / "runs" / "pre"), QUIET)
    options = " ".join(as_options(FINETUNE))
    ran = lupctl(
        f"finetune {labelled} --from pre --recipe bot --gpus 0 --workers 0 --out run {options} --set net.width=8"
    )
    assert ran.code == 2
    assert "runs/pre/checkpoint.safetensors: a trunk r18 of width 4; the recipe says r18 of width 8" in ran.err
    assert "hint: --arch r18 --set net.width=4" in ran.err
    assert not (tmp_path / "run").exists()


def fill_disk(patch: pytest.MonkeyPatch, *, states: bool = True) -> None:
    """Lets torch and safetensors meet a full disk, with the errors that each of them really raises."""

    def save_state(state: Any, stream: Any) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 768 vs 662")  # noqa: B904

    def save_file(*given: Any, **more: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    if states:
        patch.setattr(torch, "save", save_state)
    patch.setattr("lupctl.core.formats.weights.file.save_file", save_file)


def test_a_full_disk_while_saving_a_state(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {TINY}"
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 1)
        assert lupctl(line).code == 75
    before = (tmp_path / "run" / "resume.pt").read_bytes()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        signal_at(patch, step_module, 1)
        ran = lupctl(line)
    assert ran.code == 3
    assert "error: run/resume.pt: the disk is full (" in ran.err
    assert "hint: free some space, or name another place with --out or --home" in ran.err
    assert (tmp_path / "run" / "resume.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.part"))
    assert lupctl(line).code == 0


def test_a_full_disk_while_saving_the_checkpoint(
    lupctl: Shell, crowd: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = " ".join(as_options(FINETUNE))
    for line, first in (
        (f"pretrain --data {crowd} --out run {TINY}", "run/method.safetensors"),
        (f"finetune {labelled} --recipe bot --from scratch --out tuned {tuned}", "tuned/checkpoint.safetensors"),
    ):
        line += " --gpus 0 --workers 0 --set saving.every_epochs=1"
        with monkeypatch.context() as patch:
            fill_disk(patch, states=False)
            ran = lupctl(line)
        run = (tmp_path / first).parent
        assert ran.code == 3, ran.err
        assert f"error: {first}: the disk is full (" in ran.err
        assert not RunFolder(run).is_finished()
        assert read_state(run)["step"] > 0, "the last state is still there"
        assert lupctl(line).code == 0
        assert RunFolder(run).is_finished()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_state_is_said_and_force_helps(
    lupctl: Shell, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    line = f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {TINY}"
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 1)
        assert lupctl(line).code == 75
    state = tmp_path / "run" / "resume.pt"
    content = {"cut": state.read_bytes()[:-200], "text": b"hello there", "empty": b""}[damage]
    state.write_bytes(content)
    ran = lupctl(line)
    assert ran.code == 3
    assert "error: run/resume.pt: damaged (" in ran.err
    assert "hint: start over: add --force, or remove run" in ran.err
    assert state.read_bytes() == content, "left for whoever wants to look"
    assert lupctl(f"{line} --force").code == 0


def test_a_loss_that_is_no_number(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    ran = lupctl(f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {TINY} --set optim.lr=1e38 "
                 "--set schedule.warmup_epochs=0")  # fmt: skip
    assert ran.code == 3
    message, hint = ran.err.splitlines()[-2:]
    assert " became " in message
    assert " by step 4 at learning rate 1.46e+37; last good state: none yet" in message
    assert hint == "hint: start over with a smaller rate, as in --force --lr 1e+36"
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_damaged_run_file_is_named(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    run = tmp_path / "lup" / "runs" / "pre"
    pretrain(pretrain_job(crowd, run), QUIET)
    (run / "run.json").write_text("{")
    ran = lupctl("dump")
    assert ran.code == 3
    assert "error: lup/runs/pre/run.json: not readable as JSON" in ran.err
    (run / "run.json").write_text(json.dumps([1]))
    assert "run.json: not readable as JSON (the whole is a" in lupctl("dump").err


def test_a_run_of_the_other_command_is_not_overwritten(lupctl: Shell, crowd: Path, labelled: Path) -> None:
    pretrain(pretrain_job(crowd, Path("run")), QUIET)
    before = Path("run/checkpoint.safetensors").read_bytes()
    options = " ".join(as_options(FINETUNE))
    ran = lupctl(f"finetune {labelled} --from scratch --recipe bot --gpus 0 --out run {options}")
    assert ran.code == 2
    assert "contains a run with recipe.stage = 'pretrain', but now it is 'finetune'" in ran.err
    assert Path("run/checkpoint.safetensors").read_bytes() == before
