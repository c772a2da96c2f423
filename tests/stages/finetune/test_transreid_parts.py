"""A whole run with TransReID's sampler, views, rates and filters."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.header import read_header
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.sections import ScheduleSettings
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.job import build_order, plan_finetuning
from lupctl.core.stages.finetune.persons import pick_rows
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.curves import Epochs
from lupctl.core.training.engine.runs import read_metrics
from tests.tools.shell import Shell
from tests.tools.tiny.training import as_options, compute_in_double, finetune_job, read_state, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
# 36 images of 6 persons; with 3 of them and 2 images each, a pass has five or six steps. Images are 32 x 16.
PARTS = (
    "data.order=once", "data.persons=3", "data.images=2", "pixels.height=40", "pixels.width=20",
    "schedule.kind=transreid", "schedule.epochs=4", "schedule.warmup_epochs=2", "schedule.warmup_factor=0.01",
    "optim.name=sgd", "optim.lr=0.02", "optim.weight_decay=1e-4", "optim.bias_rate=2.0", "losses.smoothing=0.0",
    "losses.margin=0.0", "pixels.interpolation=bicubic", "pixels.test_interpolation=bilinear",
    "augment.pad_after_flip=true", "augment.erase=0.8", "augment.erase_area=[0.02, 0.3333]",
    "augment.erase_fill=noise",
)  # fmt: skip
# (1 + cos(pi e / 4)) / 2 for e = 0 to 4.
TURNS = (1, 0.8535533906, 0.5, 0.1464466094, 0)


def real_epochs(pack: Path) -> Epochs:
    """The epochs of a run with these settings on a pack."""
    recipe = finetune_job(pack, Path(), *PARTS).recipe
    train = pick_rows(recipe, [open_pack(pack)])
    return build_order(recipe, train.label, train.camera).epochs(4)


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(finetune_job(labelled, run, *PARTS, "saving.every_epochs=1", "evaluation.every_epochs=1"), QUIET)
    return run


def test_epochs_differ_in_length_and_everything_follows_them(labelled: Path, whole: Path) -> None:
    epochs = real_epochs(labelled)
    lengths = {end - begin for begin, end in zip(epochs.begins, epochs.begins[1:], strict=False)}
    assert len(lengths) > 1, "else this shows nothing"
    plan = plan_finetuning(finetune_job(labelled, whole, *PARTS))
    assert (plan.steps, plan.steps_per_epoch) == (epochs.total, epochs.mean_length)
    rows = read_metrics(whole)
    ends = list(epochs.begins[1:])
    assert [row["step"] for row in rows if "map" in row] == ends, "evaluated where an epoch ends"
    logged = {row["step"]: row for row in rows if "lr" in row}
    assert set(ends) <= set(logged), "and saved"
    rates = [0.0002 + (0.02 - 0.0002) / 2, *(0.02 * (0.002 + 0.998 * turn) for turn in TURNS[2:])]
    for epoch, (end, rate) in enumerate(zip(ends, rates, strict=True)):
        assert (logged[end]["epoch"], logged[end]["lr"]) == (epoch, pytest.approx(rate))


def test_a_lag_starts_at_the_start_of_the_warm_up(labelled: Path, tmp_path: Path) -> None:
    finetune(finetune_job(labelled, tmp_path / "run", *PARTS, "schedule.lag=true", "saving.every_epochs=1"), QUIET)
    found = {row["epoch"]: row["lr"] for row in read_metrics(tmp_path / "run") if "lr" in row}
    assert [found[epoch] for epoch in range(4)] == pytest.approx(
        [0.0002, 0.0101, *(0.02 * (0.002 + 0.998 * turn) for turn in TURNS[2:4])]
    )


@pytest.mark.parametrize("steps", [6, 9])
def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """At the end of an epoch, and within one."""
    assert steps in (real_epochs(labelled).begins[1], 9)
    job = finetune_job(labelled, tmp_path / "run", *PARTS, "saving.every_epochs=1", "evaluation.every_epochs=1")
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps)
        with pytest.raises(StoppedError, match=f"stopped on request after step {steps} of "):
            finetune(job, QUIET)
    state = read_state(job.run)
    assert state["step"] == steps
    assert [group["rate_scale"] for group in state["optimizer"]["param_groups"]] == [1.0, 2.0]
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


def test_two_processes_are_one(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (finetune_job(labelled, tmp_path / name, *PARTS) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key


def test_the_checkpoint_has_the_filter_of_evaluation(lupctl: Shell, labelled: Path, whole: Path) -> None:
    """And a dump of it gets the score that the run itself found."""
    assert read_header(whole / CHECKPOINT).preprocessing.interpolation == "bilinear"
    assert lupctl(f"dump {whole} {labelled} --out f.features.h5 --quiet").code == 0
    report = lupctl("eval f.features.h5 --json --quiet").json
    facts = json.loads((whole / "run.json").read_text())
    assert report["scores"]["map"] == pytest.approx(facts["scores"]["map"], abs=1e-6)


def test_the_filter_of_evaluation_changes_the_scores_and_nothing_else(
    labelled: Path, whole: Path, tmp_path: Path
) -> None:
    finetune(finetune_job(labelled, tmp_path / "run", *PARTS, "pixels.test_interpolation=bicubic"), QUIET)
    one, other = load_file(whole / CHECKPOINT), load_file(tmp_path / "run" / CHECKPOINT)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    scores = [json.loads((run / "run.json").read_text())["scores"]["map_official"] for run in (whole, tmp_path / "run")]
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("schedule.lag=true",), "lag = true needs kind = 'transreid'; kind is 'steps'"),
        (("schedule.kind=transreid", "schedule.unit=step"), "has one rate for each epoch; unit = 'epoch' is expected"),
        (("schedule.kind=transreid", "schedule.hold_epochs=3.0"), "its cosine falls from the start"),
        (("optim.bias_rate=-1.0",), "greater than or equal to 0"),
        (("pixels.test_interpolation=nearest",), "'bilinear'"),
        (("augment.erase_fill=gauss",), "'noise'"),
        (("data.order=twice",), "'once'"),
    ],
)
def test_what_cannot_be_is_refused(lupctl: Shell, labelled: Path, settings: tuple[str, ...], message: str) -> None:
    ran = lupctl(f"finetune {labelled} --recipe bot --from scratch --dry-run {' '.join(as_options(settings))}")
    assert ran.code == 2
    assert message in ran.err
    with pytest.raises(UsageError):
        resolve_recipe("finetune", "bot", overrides=settings)


def test_the_published_ends_of_the_curve_need_not_be_written() -> None:
    settings = ScheduleSettings(kind="transreid")
    assert (settings.warmup_factor, settings.final, settings.lag) == (0.01, 0.002, False)
    assert ScheduleSettings(kind="transreid", final=0.01).final == 0.01
    recipe = resolve_recipe("finetune", "bot", overrides=("schedule.kind=transreid", "schedule.final=0.0"))
    assert isinstance(recipe, FinetuneRecipe)
    assert recipe.schedule.final == 0
    assert "final = 0.0\n" in dump_recipe(recipe), "a value that is given is kept, here and when it is read back"
