"""A collapse is named in time, never where there is none, and can end a run at the last state from before it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.errors import DataError, StoppedError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain import setup as pretrain_setup
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain import watch as watch_module
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.loop import train_job
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.pretrain.watch import advise
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.methods import collapse as collapse_module
from lupctl.core.training.methods import watching
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, pretrain_job, read_state, run_forked, signal_at

QUIET = Progress(quiet=True)
TRANSFORMER = (
    "vit.depth=1", "pixels.height=32", "pixels.width=16", "bn_groups=1", "data.batch=16", "saving.every_epochs=1",
    "schedule.warmup_epochs=1",
)  # fmt: skip
DINO = (
    *TRANSFORMER, "local.height=16", "local.width=8", "local.count=2", "dino.outputs=256", "dino.hidden=64",
    "dino.bottleneck=32",
)  # fmt: skip
# Two steps and a row per epoch; a collapse is named after four steps here.
LASTS = 4
LONG = ("schedule.epochs=6", "optim.clip=0")
POINT = {"rank": 1.01, "spread": 0.002}


def collapse_from(patch: pytest.MonkeyPatch, first: int) -> None:
    """Lets the features be one point in every step from `first` on, counted from 0, and shortens what is waited for."""
    patch.setattr(watch_module, "FEWEST_STEPS", LASTS)
    patch.setattr(collapse_module, "SHORTEST", LASTS)
    patch.setattr(pretrain_setup, "WATCH_EVERY_STEPS", 2)
    real_keep, real_read, steps = watch_module.Watch.keep, watching.read_samples, list[int]()

    def keep(self: watch_module.Watch, found: Mapping[str, Any]) -> dict[str, Any]:
        steps.append(self.saved if not steps else steps[-1] + 1)
        return real_keep(self, found)

    def read(samples: Mapping[str, Any], **given: Any) -> dict[str, float]:
        found = real_read(samples, **given)
        return found | POINT if found and steps[-1] >= first else found

    patch.setattr(watch_module.Watch, "keep", keep)
    patch.setattr(watch_module, "read_samples", read)


def moco_job(pack: Path, run: Path, *settings: str) -> PretrainJob:
    """A tiny transformer with a short queue."""
    return recipe_job("small-moco-vit", pack, run, *TRANSFORMER, "moco.queue=64", *settings)


def dino_job(pack: Path, run: Path, *settings: str) -> PretrainJob:
    """A tiny transformer with a tiny head."""
    return recipe_job("small-dino", pack, run, *DINO, *settings)


def recipe_job(name: str, pack: Path, run: Path, *settings: str) -> PretrainJob:
    """A job of a shipped recipe."""
    recipe = resolve_recipe("pretrain", name, overrides=settings)
    assert isinstance(recipe, PretrainRecipe)
    return PretrainJob(recipe=recipe, packs=(pack,), run=run, placement=Placement("cpu", 1, ""), workers=0, command=())


def collapses(run: Path) -> list[tuple[int, str, int]]:
    return [(row["step"], row["collapse"], row["collapsed_since"]) for row in read_metrics(run) if "collapse" in row]


@pytest.mark.parametrize(
    "name",
    [
        "small-pnl",
        "luperson-nl-supcon",
        pytest.param("luperson-nl-simclr", marks=pytest.mark.slow),  # the step of supcon, without labels
        pytest.param("small-moco", marks=pytest.mark.slow),  # watched by other tests here
    ],
)
def test_every_method_is_watched(labelled: Path, tmp_path: Path, name: str) -> None:
    """Where it has no targets, its features are; every row has a step that was watched."""
    small = ("schedule.epochs=1", "data.batch=16", "bn_groups=1")
    plain = tuple(entry for entry in PRETRAIN if not entry.startswith("moco."))
    job = recipe_job(name, labelled, tmp_path / "run", *plain, *small)
    facts = pretrain(job, QUIET)
    (row,) = [row for row in read_metrics(job.run) if "loss" in row]
    assert row["step"] == 2
    assert 1 <= row["rank"] <= 16 + 1e-6
    assert 0 < row["spread"] <= 1
    assert "teacher_entropy" not in row
    assert facts["rank"] == row["rank"]
    assert "collapses" not in facts


def test_processes_look_at_the_same_images(crowd: Path, tmp_path: Path) -> None:
    job = pretrain_job(crowd, tmp_path / "one")
    pretrain(job, QUIET)
    other = pretrain_job(crowd, tmp_path / "two", processes=2)
    assert run_forked(_train, other, processes=2) == [0, 0]
    one, two = ([row for row in read_metrics(run) if "rank" in row] for run in (job.run, other.run))
    assert len(one) == 1
    for name in ("rank", "spread"):
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-5)


def _train(job: PretrainJob) -> None:
    job.run.mkdir(exist_ok=True)
    train_job(job)


def test_a_collapse_is_named_and_the_run_goes_on(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lupctl: Shell
) -> None:
    collapse_from(monkeypatch, 4)
    settings = " ".join(as_options((*TRANSFORMER, *LONG)))
    words = f"pretrain --recipe small-moco-vit --data {crowd} --gpus 0 --workers 0 --out run {settings}"
    ran = lupctl(f"{words} --json")
    assert ran.code == 0, ran.err
    assert ran.err.count("collapsed") == 1
    assert "warning: collapsed to one point: all images look the same to the network, from step 6 to 10" in ran.err
    assert "start over with clipped gradients, as in --force --set optim.clip=3.0" in ran.err
    assert collapses(tmp_path / "run") == [(10, "one point", 6)]
    assert ran.json["collapses"] == [{"kind": "one point", "since": 6, "step": 10}]
    again = lupctl(f"{words} --force --epochs 2 --set watch.collapse=off --json")
    assert "collapse" not in again.err
    assert "collapses" not in again.json
    assert again.json["rank"] == POINT["rank"], "numbers are written, but not judged"


def test_a_collapse_ends_the_run_at_the_last_state_from_before(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = moco_job(crowd, tmp_path / "run", *LONG, "saving.every_epochs=0", "watch.collapse=stop")
    collapse_from(monkeypatch, 4)
    with pytest.raises(DataError, match="from step 6 to 10; the state from before it, after step 4, is in") as caught:
        pretrain(job, QUIET)
    assert caught.value.exit_code == 3
    assert "run/resume.pt" in caught.value.message
    assert read_state(job.run)["step"] == 4
    assert not (job.run / "checkpoint.safetensors").exists()
    assert not (job.run / "run.json").exists()
    # The state that was kept is one to continue from; without a cause of collapse, the run now ends well.
    monkeypatch.undo()
    assert pretrain(job, QUIET)["steps"] == 12
    assert collapses(job.run) == []


def test_a_collapse_without_a_state_before_it(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is saved before the end. Rows are then ten steps apart, and two of them are enough."""
    job = moco_job(crowd, tmp_path / "run", *LONG, "schedule.epochs=10", "watch.collapse=stop")
    monkeypatch.setattr(watch_module.Watch, "is_saving_due", lambda self, done: False)
    collapse_from(monkeypatch, 4)
    with pytest.raises(DataError, match="no state was saved before it"):
        pretrain(job, QUIET)
    assert not (job.run / "resume.pt").exists()


def test_a_request_to_stop_keeps_the_state_from_before(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps since then are taken again, and the collapse is found where it would have been."""
    job = moco_job(crowd, tmp_path / "run", *LONG, "watch.collapse=stop")
    collapse_from(monkeypatch, 4)
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 9)
        with pytest.raises(StoppedError, match="after step 4 of 12"):
            pretrain(job, QUIET)
    assert read_state(job.run)["step"] == 4
    monkeypatch.undo()
    collapse_from(monkeypatch, 4)
    with pytest.raises(DataError, match="from step 6 to 10"):
        pretrain(job, QUIET)


def test_a_continued_run_remembers_what_it_saw(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from before the interruption count: the collapse began before it, and is named after it, once."""
    job = moco_job(crowd, tmp_path / "run", *LONG)
    collapse_from(monkeypatch, 4)
    for at in (8, 3):  # once before it is named, and once after
        with monkeypatch.context() as patch:
            signal_at(patch, step_module, at)
            with pytest.raises(StoppedError):
                pretrain(job, QUIET)
        monkeypatch.undo()
        collapse_from(monkeypatch, 0)
    facts = pretrain(job, QUIET)
    assert facts["collapses"] == [{"kind": "one point", "since": 6, "step": 10}]
    assert json.loads((job.run / "run.json").read_text())["collapses"] == facts["collapses"]


def test_all_processes_end_together(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collapse_from(monkeypatch, 4)
    job = moco_job(crowd, tmp_path / "run", *LONG, "watch.collapse=stop")
    job = replace(job, placement=Placement("cpu", 2, ""))
    assert run_forked(_train, job, processes=2) == [1, 1]
    assert read_state(job.run)["step"] == 4
    assert collapses(job.run) == [(10, "one point", 6)]


def test_self_distillation_says_how_sure_its_targets_are(crowd: Path, tmp_path: Path) -> None:
    job = dino_job(crowd, tmp_path / "run", "schedule.epochs=2")
    pretrain(job, QUIET)
    (row,) = [row for row in read_metrics(job.run) if "rank" in row]
    most = 5.546  # log 256
    assert 0 < row["teacher_entropy"] < most
    assert 0 < row["student_entropy"] <= most
    assert 0 < row["kl"] < most
    assert 0 < row["information"] < most
    assert 0 < row["used"] <= 1


def test_advice_names_the_likeliest_cause_first(crowd: Path, tmp_path: Path) -> None:
    def advice(kind: collapse_module.CollapseKind, *settings: str) -> str:
        return advise(kind, dino_job(crowd, tmp_path, *settings).recipe)

    assert advice("one point", "dino.centre_momentum=0.9999").endswith("--set dino.centre_momentum=0.9")
    assert advice("uniform", "dino.temperature=0.3").endswith("--set dino.temperature=0.04")
    assert advice("one point").endswith("--force --lr 5e-05")
    assert advice("uniform", "optim.clip=0").endswith("--set optim.clip=3.0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("one point", "dino.centre_momentum=0.9999999"),  # no centre
        ("uniform", "dino.temperature=0.3"),  # targets that are less sure than the student
        (None, "optim.lr=0.1"),  # which of the two is chance
    ],
)
def test_real_collapses_are_named(labelled: Path, tmp_path: Path, kind: str | None, setting: str) -> None:
    job = dino_job(labelled, tmp_path / "run", "optim.lr=1e-3", "schedule.epochs=130", setting, "watch.collapse=stop")
    with pytest.raises(DataError, match="collapsed to"):
        pretrain(job, QUIET)
    ((step, found, since),) = collapses(job.run)
    assert found == (kind or found)
    assert step - since <= 50
    assert read_state(job.run)["step"] <= since
    rows = [row for row in read_metrics(job.run) if "rank" in row]
    assert rows[0]["information"] > 0.02, "a fresh network was none"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("method", ["moco", "dino"])
def test_sound_runs_are_never_called_collapsed(labelled: Path, tmp_path: Path, method: str, seed: int) -> None:
    settings = ("schedule.epochs=100", "watch.collapse=stop", f"seed={seed}")
    job = (dino_job if method == "dino" else moco_job)(labelled, tmp_path / "run", *settings)
    facts = pretrain(job, QUIET)
    assert "collapses" not in facts


def test_curves_have_no_point_for_a_word(tmp_path: Path) -> None:
    """The row that names a collapse is no curve; numbers beside the word are."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = Board(tmp_path, step=0)
    board.write({"step": 10, "rank": 1.5})
    board.write({"step": 10, "epoch": 0, "collapse": "one point", "collapsed_since": 5})
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"rank", "epoch", "collapsed_since"}
