"""Runs of SOLIDER: started from self-distillation, continued, on any number of processes; and what they refuse."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.weights.file import Checkpoint, read_checkpoint, read_method, write_checkpoint, write_method
from lupctl.core.formats.weights.header import read_header
from lupctl.core.resolve.retrieval.lineage import lineage_of
from lupctl.core.stages.pretrain import loop, step
from lupctl.core.stages.pretrain.job import plan_pretraining, student_plan
from lupctl.core.stages.pretrain.profile import profile
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.pretrain.starts.load import load_start
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.methods.build import build_method
from lupctl.core.training.methods.solider import Solider
from lupctl.core.training.nets.foreign.fitting import MismatchError
from lupctl.core.workspace import Workspace
from tests.tools.shell import Shell
from tests.tools.tiny.training import PARTS, SOLIDER, as_options, run_forked, signal_at, solider_job

QUIET = Progress(quiet=True)
CHECKPOINT, METHOD = "checkpoint.safetensors", "method.safetensors"


@pytest.fixture(scope="module")
def first(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of self-distillation with the same networks, of two steps."""
    run = tmp_path_factory.mktemp("first") / "first"
    pretrain(solider_job(crowd, run, "schedule.epochs=1", recipe="small-dino-swin"), QUIET)
    return run


@pytest.fixture(scope="module")
def whole(crowd: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from there that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(solider_job(crowd, run, start=first / METHOD), QUIET)
    return run


def rewrite(path: Path, found: Checkpoint, **recipe: str) -> Path:
    """A method file with other entries of its recipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = found.header.model_copy(update={"recipe": {**(found.header.recipe or {}), **recipe}})
    write_method(path, found.tensors, header)
    return path


@pytest.mark.slow
def test_a_run_starts_from_both_networks_and_a_new_centre(
    crowd: Path, first: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state after no step is that of the start; the row, the header and the checkpoint say what came of it."""
    job, seen = solider_job(crowd, tmp_path / "run", start=first / METHOD), dict[str, torch.Tensor]()

    def look(*given: object, **more: object) -> None:
        seen.update({key: value.clone() for key, value in given[2].method.state_dict().items()})  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "take_step", look)
    with pytest.raises(KeyboardInterrupt):
        pretrain(job, QUIET)
    start = read_method(first / METHOD).tensors
    for key, value in start.items():
        assert torch.equal(seen[key], value) or key == "centre", key
    assert float(start["centre"].abs().max()) > 0
    assert float(seen["centre"].abs().max()) == 0
    assert seen["student.part_head.last_layer.weight"].shape == (3, 6)
    assert not [key for key in seen if key.startswith("teacher.part_head")]
    row = read_metrics(whole)[-1]
    assert {"loss", "semantic", "kept", "teacher_entropy", "rank"} <= row.keys()
    assert row["semantic"] > 0
    assert 0 < row["kept"] <= 1
    header = read_header(whole / CHECKPOINT)
    assert {"start", "start_method"} <= header.parents.keys()
    assert header.network == student_plan(job.recipe)
    kept = load_file(whole / CHECKPOINT)
    every = read_method(whole / METHOD).tensors
    assert all(torch.equal(value, every[f"teacher.embedding.{key}"]) for key, value in kept.items())
    frozen = [key for key in every if key.startswith("student.part_head.")]
    assert frozen
    assert all(torch.equal(every[key], seen[key]) for key in frozen)


@pytest.mark.slow
def test_stopped_and_continued_is_the_same_to_the_bit(
    crowd: Path,
    first: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run that continues does not say that it has a new centre."""
    job = solider_job(crowd, tmp_path / "run", start=first / METHOD)
    with monkeypatch.context() as patch:
        signal_at(patch, step, 1)
        with pytest.raises(StoppedError, match="of 4"):
            pretrain(job, QUIET)
    capsys.readouterr()
    pretrain(replace(job, quiet=False), QUIET)
    said = capsys.readouterr().err
    assert f"start: {first / METHOD}; continued after step 1, with the centre and the optimizer of this run" in said
    assert "new centre" not in said
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert (job.run / METHOD).read_bytes() == (whole / METHOD).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("part_head", ["frozen", "trained"])
def test_any_number_of_processes_gives_the_same_bits(crowd: Path, first: Path, tmp_path: Path, part_head: str) -> None:
    """Four parts in one process or two, which keep different numbers of views; the head for parts learns, or stays."""
    runs = []
    for number in (1, 2):
        settings = (f"solider.part_head={part_head}", "schedule.epochs=1", "dino.frozen_epochs=0")
        job = solider_job(crowd, tmp_path / str(number), *settings, start=first / METHOD, processes=number)
        job.run.mkdir()
        assert run_forked(loop.train_job, job, processes=number) == [0] * number
        runs.append(read_method(job.run / METHOD).tensors)
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())


@pytest.mark.slow
def test_a_step_without_a_usable_view_goes_on(crowd: Path, tmp_path: Path) -> None:
    """No map is all person; the head for parts gets gradients of zero, and only its weight decay."""
    settings = ("solider.foreground=0.99", "solider.part_head=trained", "schedule.epochs=1")
    with pytest.raises(UsageError, match=r"solider\.start = '' names no start here") as caught:
        pretrain(solider_job(crowd, tmp_path / "run", *settings), QUIET)
    assert "--set solider.start=scratch" in caught.value.hint
    pretrain(solider_job(crowd, tmp_path / "run", *settings, "solider.start=scratch"), QUIET)
    row = read_metrics(tmp_path / "run")[-1]
    assert (row["kept"], row["semantic"]) == (0, 0)
    assert row["loss"] > 0


@pytest.mark.slow
def test_what_is_no_start_is_refused(crowd: Path, first: Path, tmp_path: Path) -> None:
    """In one line with what to type, before anything is written; tensors that differ as a table."""
    found = read_method(first / METHOD)
    job = solider_job(crowd, tmp_path / "run", start=rewrite(tmp_path / "moco" / METHOD, found, method="moco"))
    with pytest.raises(UsageError, match="a pre-training by moco; solider starts from one by dino or solider") as moco:
        pretrain(job, QUIET)
    assert "lupctl pretrain --method dino --arch swin-u" in moco.value.hint
    wide = solider_job(crowd, tmp_path / "run", "dino.outputs=50", start=first / METHOD)
    with pytest.raises(MismatchError, match="2 of its tensors do not fit") as caught:
        plan_pretraining(wide)
    assert caught.value.rows[0] == ("student.head.last_layer.weight", "40 x 8", "50 x 8")
    assert caught.value.hint == "--set dino.outputs=40"
    deep = solider_job(crowd, tmp_path / "run", "swin.depths=[1, 1, 2, 1]", start=first / METHOD)
    with pytest.raises(UsageError, match=r"depths 1-1-1-1 .*; the recipe trains swin-u depths 1-1-2-1"):
        plan_pretraining(deep)
    other = solider_job(crowd, tmp_path / "run", "net.arch=swin-t", start=first / METHOD)
    with pytest.raises(UsageError, match=r"networks on swin-u .*; the recipe trains swin-t") as sized:
        plan_pretraining(other)
    assert sized.value.hint == "--recipe small-solider"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_profile_says_what_pseudo_labels_cost(crowd: Path, tmp_path: Path) -> None:
    found = profile(solider_job(crowd, tmp_path / "run", "solider.start=scratch"), 1)
    assert found is not None
    assert {"targets", "labels", "forward", "backward"} <= {name for name, seconds in found.loop_s.items() if seconds}


@pytest.mark.slow
def test_short_commands_lead_from_one_stage_to_the_next(
    lupctl: Shell, crowd: Path, first: Path, whole: Path, tmp_path: Path
) -> None:
    """The newest run of dino that fits is the start, never one of solider; a network alone is none."""
    packs, runs = tmp_path / "lup/packs", tmp_path / "lup/runs"
    packs.mkdir(parents=True)
    shutil.copy(crowd, packs / "crowd.h5")
    for run in (first, whole):
        shutil.copytree(run, runs / {first: "one", whole: "two"}[run])
    tiny = shlex.join(as_options((*SOLIDER, *PARTS)))
    plan = f"pretrain --recipe small-solider --gpus 0 --dry-run {tiny}"
    said = lupctl(f"{plan} --json")
    assert said.json["start"] == "one"
    assert "(the newest run of dino with these networks here)" in said.err
    assert lupctl(f"{plan} --json --from two").json["start"] == "two"
    other = lupctl(f"{plan} --set dino.outputs=50")
    assert "start: unknown; lup/runs: no finished run of dino with the networks of this recipe" in other.err
    meant = lupctl(f"{plan} --from tow")
    assert (meant.code, meant.err.splitlines()[-1]) == (3, "hint: did you mean two?")
    shutil.copytree(whole, runs / "finetuned")
    facts = json.loads((runs / "finetuned" / "run.json").read_text())
    (runs / "finetuned" / "run.json").write_text(json.dumps({**facts, "command": "finetune"}))
    nearest = lupctl(f"{plan} --from finetune")
    assert nearest.err.splitlines()[-1] == "hint: did you mean one?", "of pre-training, and with these networks"
    nothing = lupctl(f"{plan} --set dino.outputs=50 --from tow")
    assert nothing.err.splitlines()[-1] == "hint: --from scratch"
    shutil.rmtree(runs / "finetuned")
    wide = lupctl(f"{plan} --set dino.outputs=50 --from one")
    assert wide.code == 3
    assert "student.head.last_layer.weight  40 x 8" in wide.err
    found = read_checkpoint(whole / CHECKPOINT)
    alone = tmp_path / "alone.safetensors"
    write_checkpoint(alone, found.tensors, found.header.model_copy(update={"stage": "convert"}))
    refused = lupctl(f"{plan} --from alone.safetensors")
    assert refused.code == 2
    assert "alone.safetensors: a converted network alone; solider starts from student and teacher" in refused.err
    lineage = lineage_of(Workspace(tmp_path / "lup"), runs / "two" / CHECKPOINT)
    assert [path.parent.name for path in lineage.checkpoints] == ["two", "one"]


@pytest.mark.slow
def test_a_run_of_solider_goes_on_with_its_head_for_parts(crowd: Path, whole: Path, tmp_path: Path) -> None:
    """If it has one of this size; the random projection would otherwise be another one."""
    start, key = read_method(whole / METHOD).tensors, "student.part_head.last_layer.weight"
    for more, said, same in (((), "", True), (("solider.part_bottleneck=4",), "; new head for parts", False)):
        job = solider_job(crowd, tmp_path / "run", *more, "seed=9", start=whole / METHOD)
        plan_pretraining(job)
        method = build_method(job.recipe.settings, student_plan(job.recipe), seed=9, solider=job.recipe.solider)
        assert isinstance(method, Solider)
        line = load_start(method, whole / METHOD)
        assert ("new head for parts" in line) == bool(said)
        value = method.state_dict()[key]
        assert (value.shape == start[key].shape and torch.equal(value, start[key])) == same
