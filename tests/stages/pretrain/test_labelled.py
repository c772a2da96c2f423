"""Pre-training with labels: PNL, its variants and baselines; over processes, kills and phases, and on bad labels."""

import json
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.choices import Method
from lupctl.core.data.sources.label_noise import LabelNoise, NoisySource
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.errors import DataError, StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import read_method
from lupctl.core.formats.weights.header import read_header
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pack import pack as pack_source
from lupctl.core.stages.pretrain import loop, setup
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining
from lupctl.core.stages.pretrain.labels import labelled_rows, read_labels
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from lupctl.core.training.engine.saving import StateWriter
from tests.tools.drawn_packs import pack_drawn
from tests.tools.shell import Shell
from tests.tools.tiny.training import as_options, compute_in_double, read_state, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
# Two steps per epoch on the 36 training images of `labelled`; six epochs pass through all phases. So few steps make no
# classifier sure of anything; the prototypes decide on corrections.
TINY = (
    "net.arch=r18", "net.width=4", "pixels.height=32", "pixels.width=16", "data.batch=16", "bn_groups=4",
    "optim.lr=0.1", "schedule.epochs=6", "schedule.unit=step", "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
PNL = (
    *TINY, "pnl.dim=16", "pnl.hidden=8", "pnl.queue=40", "pnl.momentum=0.99", "pnl.prototype_momentum=0.5",
    "pnl.correction_epoch=2", "pnl.positives_epoch=4", "pnl.threshold=0.5", "pnl.alpha=0.1", "pnl.temperature=0.03",
    "augment_weak.pad=2", "schedule.kind=cosine", "optim.lr=0.01", "optim.momentum=0.5",
)  # fmt: skip

# Eight steps in all: in more of them, batch norm over few pixels blows up what double precision rounds.
EARLY = ("schedule.epochs=4", "pnl.correction_epoch=1", "pnl.positives_epoch=2")


def job_of(pack: Path, run: Path, *settings: str, recipe: str = "luperson-nl-pnl", processes: int = 1) -> PretrainJob:
    base = PNL if recipe == "luperson-nl-pnl" else TINY
    found = resolve_recipe("pretrain", recipe, overrides=(*base, *settings))
    assert isinstance(found, PretrainRecipe)
    return PretrainJob(
        recipe=found, packs=(pack,), run=run, placement=Placement("cpu", processes, ""), workers=0, command=()
    )


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps through all phases that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(job_of(labelled, run), QUIET)
    return run


def relabel(pack: Path, out: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:  # type: ignore[type-arg]
    """A copy of a pack with other person numbers."""
    shutil.copy(pack, out)
    with h5py.File(out, "r+") as file:
        person = file["samples/person"]
        person[:] = change(person[()])
    return out


def test_a_run_goes_through_all_phases_and_keeps_no_classifier(labelled: Path, whole: Path) -> None:
    checkpoint, made = load_file(whole / CHECKPOINT), read_method(whole / "method.safetensors").tensors
    assert read_header(whole / CHECKPOINT).network.head.kind == "projection"
    assert not any("class" in key for key in checkpoint)
    assert made["student.classes.classifier.weight"].shape == (6, 8)
    assert not any("class" in key for key in made if key.startswith("teacher."))
    assert made["prototypes.mean"].shape == (6, 16)
    torch.testing.assert_close(made["prototypes.mean"].norm(dim=1), torch.ones(6))
    assert set(made["queue.label"].tolist()) <= set(range(6))
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["images"], facts["steps"], facts["method"]) == (36, 12, "pnl")
    rows = read_metrics(whole)
    assert [row["step"] for row in rows] == [10, 12]
    assert rows[-1]["corrected"] > 0
    for row in rows:
        assert 0 < row["loss_contrast"] < row["loss"]
        assert {"loss_class", "loss_prototype", "corrected", "agreement", "hits"} <= row.keys()
        assert "purity" not in row, "the pack knows no truth besides its labels"


@pytest.mark.parametrize("steps", [4, 8])
def test_a_kill_at_the_border_of_a_phase_changes_no_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Corrections start with step 4, label positives with step 8, counted from 0."""
    job = job_of(labelled, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, steps)
        with pytest.raises(StoppedError, match=f"stopped on request after step {steps} of 12"):
            pretrain(job, QUIET)
    state = read_state(job.run)["model"]
    assert {"queue.label", "queue.pointer", "prototypes.mean", "student.classes.classifier.bias"} <= state.keys()
    assert "persons" not in state
    torch.manual_seed(12345)
    pretrain(job, QUIET)
    for name in (CHECKPOINT, "method.safetensors"):
        assert (job.run / name).read_bytes() == (whole / name).read_bytes()


def test_a_killed_process_continues_from_the_last_epoch(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(labelled, tmp_path / "run", "saving.every_epochs=1")
    job.run.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(StateWriter, "poll", StateWriter.join)
        signal_at(patch, step_module, 6, signal.SIGKILL)
        assert run_forked(loop.train_job, job, processes=2) == [-signal.SIGKILL] * 2
    assert read_state(job.run)["step"] == 4, "corrections had not begun"
    loop.train_job(job)
    for key, value in load_file(job.run / "method.safetensors").items():
        assert torch.equal(value, load_file(whole / "method.safetensors")[key]), key


@pytest.mark.parametrize(
    ("recipe", "settings", "processes"),
    [
        ("luperson-nl-pnl", (), 2),
        pytest.param("luperson-nl-pnl", (), 4, marks=pytest.mark.slow),
        pytest.param("luperson-nl-pnl", ("pnl.variant=ce",), 2, marks=pytest.mark.slow),
        pytest.param("luperson-nl-pnl", ("pnl.variant=ic",), 2, marks=pytest.mark.slow),
        pytest.param("luperson-nl-pnl", ("pnl.variant=ce+ic",), 2, marks=pytest.mark.slow),
        ("luperson-nl-pnl", ("pnl.variant=ce+pro",), 2),
        ("luperson-nl-simclr", (), 4),
        ("luperson-nl-supcon", ("supcon.dim=16",), 2),
    ],
)
def test_several_processes_are_one_to_the_bit(
    labelled: Path, tmp_path: Path, recipe: str, settings: tuple[str, ...], processes: int
) -> None:
    one, many = (job_of(labelled, tmp_path / name, *settings, recipe=recipe) for name in ("one", "many"))
    many.run.mkdir()
    pretrain(one, QUIET)
    assert run_forked(loop.train_job, many, processes=processes) == [0] * processes
    for name in (CHECKPOINT, "method.safetensors"):
        tensors = [load_file(job.run / name) for job in (one, many)]
        for key, value in tensors[0].items():
            assert torch.equal(value, tensors[1][key]), key
    facts = [json.loads((job.run / "run.json").read_text()) for job in (one, many)]
    assert facts[0]["loss"] == pytest.approx(facts[1]["loss"], rel=1e-5)
    if "corrected" in facts[0]:
        assert facts[0]["corrected"] == pytest.approx(facts[1]["corrected"])


def test_shards_are_the_whole_to_rounding(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six labels over four processes, so that some have one and some two, through all phases; in double precision."""
    compute_in_double(monkeypatch, step_module, setup, "place_method")
    one = job_of(labelled, tmp_path / "one", *EARLY)
    pretrain(one, QUIET)
    expected = load_file(one.run / "method.safetensors")
    for name, processes in (("alone", 1), ("four", 4)):
        job = job_of(labelled, tmp_path / name, *EARLY, "pnl.sharded=true")
        job.run.mkdir()
        assert run_forked(loop.train_job, job, processes=processes) == [0] * processes
        found = load_file(job.run / "method.safetensors")
        assert found["classifier.weight"].dtype == torch.float64
        for key, value in expected.items():
            own = found[key.replace("student.classes.classifier", "classifier")]
            torch.testing.assert_close(own, value, rtol=0, atol=1e-6, msg=key)
        facts = [json.loads((run / "run.json").read_text()) for run in (one.run, job.run)]
        assert facts[0]["corrected"] == pytest.approx(facts[1]["corrected"])
        assert facts[0]["corrected"] > 0


def test_shards_stop_and_continue_in_any_number_of_processes(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is that of the whole: momentum of the classifier, prototypes, and all."""
    compute_in_double(monkeypatch, step_module, setup, "place_method")
    once, again = (job_of(labelled, tmp_path / name, *EARLY, "pnl.sharded=true") for name in ("once", "again"))
    for job in (once, again):
        job.run.mkdir()
    assert run_forked(loop.train_job, once, processes=2) == [0, 0]
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 5)
        assert run_forked(loop.train_job, again, processes=4) == [1] * 4, "all stopped"
    state = read_state(again.run)
    assert state["model"]["classifier.weight"].shape == (6, 8)
    assert state["model"]["prototypes.mean"].shape == (6, 16)
    shapes = [tuple(kept["momentum_buffer"].shape) for kept in state["optimizer"]["state"].values()]
    assert {(6, 8), (6,)} <= set(shapes)
    assert run_forked(loop.train_job, again, processes=2) == [0, 0]
    found = load_file(again.run / "method.safetensors")
    for key, value in load_file(once.run / "method.safetensors").items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=key)


def test_more_shards_than_labels_are_refused(labelled: Path, tmp_path: Path) -> None:
    job = job_of(labelled, tmp_path / "run", "pnl.sharded=true", "bn_groups=8", processes=8)
    with pytest.raises(UsageError, match="6 labels cannot be spread over 8 processes; each needs one or more"):
        plan_pretraining(job)


def test_the_published_plan_says_what_shards_save(lupctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    ran = lupctl("pretrain --method pnl --arch r50 --gpus 8 --dry-run --json")
    assert ran.code == 0, ran.err
    assert (ran.json["batch"], ran.json["batch_per_device"], ran.json["classes"]) == (1536, 192, 433_997)
    assert "labels: 433,997, those of LUPerson-NL" in ran.err
    saved = ran.json["memory_bytes"] - ran.json["sharded_memory_bytes"]
    # Weight, gradient and momentum of 433,997 x 257 numbers, and as many prototypes of 128: seven eighths of them, and
    # all of the message.
    classifier, prototypes = 4 * 433_997 * 257, 4 * 433_997 * 128
    assert saved == pytest.approx(7 / 8 * (3 * classifier + prototypes) + classifier, rel=0.01)
    ran = lupctl("pretrain --method pnl --arch r50 --gpus 8 --dry-run --json --set pnl.sharded=true")
    assert ran.json["memory_bytes"] == ran.json["sharded_memory_bytes"]


def test_labels_with_gaps_give_the_run_of_labels_without(labelled: Path, whole: Path, tmp_path: Path) -> None:
    """The published ids have gaps, which broke the published code."""
    pack = relabel(labelled, tmp_path / "gaps.h5", lambda person: np.where(person > 0, person * 1000 + 7, person))
    pretrain(job_of(pack, tmp_path / "run"), QUIET)
    for key, value in load_file(tmp_path / "run" / "method.safetensors").items():
        assert torch.equal(value, load_file(whole / "method.safetensors")[key]), key


def test_the_same_label_in_two_packs_is_two_labels(labelled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(labelled, other)
    packs = [open_pack(labelled), open_pack(other)]
    rows = labelled_rows(packs, "pnl")
    labels = read_labels(packs, rows)
    assert (len(rows), labels.num_classes) == (72, 12)
    assert labels.label[:36].max() == 5
    assert np.array_equal(labels.label[36:], labels.label[:36] + 6)
    plan = plan_pretraining(replace(job_of(labelled, tmp_path / "run"), packs=(labelled, other)))
    assert (plan.images, plan.classes) == (72, 12)


def test_images_without_a_label_are_left_out(labelled: Path, tmp_path: Path, lupctl: Shell) -> None:
    pack = relabel(labelled, tmp_path / "some.h5", lambda person: np.where(person == 3, -1, person))
    job = job_of(pack, tmp_path / "run")
    plan, kept = plan_pretraining(job), int((open_pack(pack).samples.person[:36] > 0).sum())
    assert (plan.images, plan.classes) == (kept, 5)
    ran = lupctl(f"pretrain --method pnl --data {pack} --gpus 0 --dry-run {' '.join(as_options(PNL))}")
    assert ran.code == 0, ran.err
    assert f"labels: 5 on {kept} images; {36 - kept} more images have none and are left out" in ran.err
    assert "none will be corrected" not in ran.err
    ran = lupctl(f"pretrain --method pnl --data {pack} --gpus 0 --dry-run {' '.join(as_options(PNL))} --epochs 2")
    assert "labels: none will be corrected, which begins after 2 epochs of 2: --set pnl.correction_epoch=1" in ran.err


def test_a_run_that_is_too_short_for_a_phase_says_so(labelled: Path, lupctl: Shell) -> None:
    """And what it proposes is enough."""
    base = f"pretrain --method pnl --data {labelled} --gpus 0 --dry-run {' '.join(as_options(PNL))}"
    filled = "labels: prototypes will only fill, because their loss begins after 1 epoch of 1; none will be corrected"
    queue = "labels: none will have positives in the queue, which begin after 4 epochs of 3"
    for options, line in (
        ("--epochs 1", f"{filled}: --epochs 2"),
        ("--epochs 3", f"{queue}: --set pnl.positives_epoch=1"),
    ):
        ran = lupctl(f"{base} {options}")
        assert ran.code == 0, ran.err
        assert line in ran.err
        ran = lupctl(f"{base} {options} {line.rpartition(': ')[2]}")
        assert ran.code == 0, ran.err
        assert line.partition(", which")[0] not in ran.err
    assert "labels: none" not in ran.err
    ran = lupctl(f"{base} --epochs 3 --set pnl.variant=ce+pro")
    assert "positives" not in ran.err


@pytest.mark.parametrize("method", ["pnl", "supcon"])
def test_labels_that_say_nothing_are_refused(crowd: Path, labelled: Path, tmp_path: Path, method: Method) -> None:
    recipe = f"luperson-nl-{method}"
    one = relabel(labelled, tmp_path / "one.h5", lambda person: np.where(person > 0, 5, person))
    each = relabel(labelled, tmp_path / "each.h5", lambda person: np.arange(len(person)))
    for pack, message in (
        (crowd, f"crowd.h5: its images have no labels, from which the method {method} learns"),
        (one, f"one.h5: all 36 images have the same label, which tells the method {method} nothing"),
        (each, f"each.h5: 36 images with 36 labels: no two images share one, which tells the method {method} nothing"),
    ):
        with pytest.raises(DataError) as caught:
            pretrain(job_of(pack, tmp_path / "run", recipe=recipe), QUIET)
        assert message in caught.value.message
        assert "--method moco" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_purity_is_known_where_labels_were_disturbed(tmp_path: Path, lupctl: Shell) -> None:
    """The pack's labels are tracklets; what the run reports is counted here from the names of the files."""
    plan = SyntheticPlan(train_persons=12, cameras=3, shots=2, height=32, width=16)
    pack = tmp_path / "noisy.h5"
    source = NoisySource(SyntheticSource(plan, dataset="noisy"), LabelNoise(split=0.3, merge=0.4))
    pack_source(source, out=pack, progress=QUIET, workers=1)
    made = open_pack(pack)
    truth = [int(name.rpartition("/")[2][:4]) for name in made.samples.name]
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for label, person in zip(made.samples.person.tolist(), truth, strict=True):
        votes[label][person] += 1
    pure = sum(max(counts.values()) for counts in votes.values()) / len(truth)
    assert pure < 0.95
    labels = read_labels([made], labelled_rows([made], "pnl"))
    assert labels.persons is not None
    assert labels.truth is not None
    assert (labels.persons[labels.label] == labels.truth).mean() == pytest.approx(pure)
    sure = ("pnl.alpha=0.95", "pnl.temperature=0.07", "pnl.hidden=0", "optim.lr=0.3")  # a bold classifier
    options = " ".join(as_options((*PNL, "data.batch=8", "bn_groups=1", *sure)))
    ran = lupctl(f"pretrain --method pnl --data {pack} --gpus 0 --workers 0 --out run {options}")
    assert ran.code == 0, ran.err
    assert f"labels: {len(votes)} on {len(truth)} images; of 12 persons, purity {pure:.1%}" in ran.err
    rows = read_metrics(tmp_path / "run")
    assert all(0 <= row["purity"] <= 1 for row in rows)
    # An epoch without the rest that fills no batch: nearly every image once.
    given = sum(row["purity_given"] for row in rows) / len(rows)
    assert given == pytest.approx(pure, abs=0.05)
    assert rows[0]["corrected"] == 0
    assert rows[0]["purity"] == rows[0]["purity_given"]
    last = rows[-1]
    assert last["corrected"] > 0
    line = f"corrected {last['corrected']:.1%}, agreement {last['agreement']:.1%}, purity {last['purity']:.1%}"
    assert f"{line} (given {last['purity_given']:.1%})" in ran.err  # the last line of the progress
    (data,) = read_header(tmp_path / "run" / CHECKPOINT).data
    assert data.source is not None
    assert data.source["label_noise"] == {"split": 0.3, "merge": 0.4, "seed": 0}, "the true persons stay in the pack"
    history = RunFolder(tmp_path / "run").read_facts()["labels"]
    spans = np.diff([row["step"] for row in rows], prepend=0)
    of_last = np.array([row["epoch"] == history[-1]["epoch"] for row in rows])
    assert (history[0]["epoch"], history[-1]["epoch"]) == (rows[0]["epoch"], last["epoch"])
    for name in ("corrected", "agreement", "purity_given", "purity"):
        found = np.array([row[name] for row in rows])
        assert history[-1][name] == pytest.approx((spans * found)[of_last].sum() / spans[of_last].sum())
    title, columns, *_ = [part.split() for part in ran.out.splitlines() if part.strip()]
    assert title == ["labels,", "%", "of", "the", "images"]
    assert columns == ["epoch", "corrected", "agreement", "purity", "given", "purity"]
    shown = [f"{100 * history[-1][name]:.1f}" for name in ("corrected", "agreement", "purity_given", "purity")]
    assert [str(history[-1]["epoch"]), *shown] in [part.split() for part in ran.out.splitlines()]
    assert ran.out.splitlines()[-1] == "run"


def test_images_alone_need_no_labels(crowd: Path, tmp_path: Path) -> None:
    facts = pretrain(job_of(crowd, tmp_path / "run", "pnl.variant=ic", "schedule.epochs=1"), QUIET)
    assert facts["images"] == 36
    assert {"loss_contrast", "hits"} <= facts.keys()
    assert not {"loss_class", "corrected"} & facts.keys()


def test_another_number_of_labels_under_the_same_name_is_refused(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "labelled.h5"
    shutil.copy(labelled, pack)
    signal_at(monkeypatch, step_module, 1)
    with pytest.raises(StoppedError):
        pretrain(job_of(pack, tmp_path / "run"), QUIET)
    pack.unlink()
    plan = SyntheticPlan(train_persons=7, test_persons=6, cameras=3, shots=2, height=32, width=16)
    pack_drawn(plan, pack, dataset="labelled")
    with pytest.raises(UsageError, match=r"contains a run with inputs\.classes = 6, but now it is 7"):
        pretrain(job_of(pack, tmp_path / "run"), QUIET)


def test_a_short_command_finds_recipe_and_labelled_pack(
    labelled: Path, crowd: Path, tmp_path: Path, lupctl: Shell
) -> None:
    packs = tmp_path / "lup" / "packs"
    packs.mkdir(parents=True)
    shutil.copy(crowd, packs / "crowd.h5")
    ran = lupctl(f"pretrain --method pnl --gpus 0 --dry-run --json {' '.join(as_options(PNL))}")
    assert ran.code == 0, "a plan needs no data"
    assert "no labelled pack to pre-train on (unlabelled: crowd)" in ran.err
    assert "hint: --method moco needs no labels" in ran.err
    shutil.copy(labelled, packs / "labelled.h5")
    for method, arch, recipe in (
        ("pnl", "r50", "luperson-nl-pnl"),
        ("pnl", "r101", "luperson-nl-pnl-r101"),
        ("supcon", "r50", "luperson-nl-supcon"),
        ("simclr", "r152", "luperson-nl-simclr"),
    ):
        small = " ".join(as_options(("data.batch=16", "bn_groups=4", "pixels.height=32", "pixels.width=16")))
        ran = lupctl(f"pretrain --method {method} --arch {arch} --gpus 0 --dry-run --json {small}")
        assert ran.code == 0, ran.err
        assert f"recipe: {recipe} (LUPerson-NL's, the default)" in ran.err
        kind = "unlabelled" if method == "simclr" else "labelled"
        assert f"the only {kind} pack here" in ran.err
        assert ran.json.get("classes") == (None if method == "simclr" else 6)
        assert ("sharded_memory_bytes" in ran.json) == (method == "pnl")


def test_fine_tuning_from_such_a_run_takes_the_recipe_of_luperson_nl(
    whole: Path, labelled: Path, lupctl: Shell
) -> None:
    ran = lupctl(f"finetune {labelled} --from {whole} --gpus 0 --dry-run")
    assert ran.code == 0, ran.err
    assert "recipe: mgn-luperson-nl (the default for this start" in ran.err
