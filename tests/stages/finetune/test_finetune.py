"""Fine-tuning: resumed, spread over processes, where it starts, whom it learns, and what it refuses."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError, InterruptedRunError, StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.header import read_header
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.job import FinetuneJob, build_order, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.persons import pick_rows
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from tests.tools.drawn_packs import pack_drawn
from tests.tools.networks import neck
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import (
    FINETUNE,
    as_options,
    call_at,
    compute_in_double,
    finetune_job,
    pretrain_job,
    read_state,
    run_forked,
    signal_at,
)

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps from scratch that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(finetune_job(labelled, run), QUIET)
    return run


@pytest.fixture(scope="module")
def backbone(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a pre-training run."""
    run = tmp_path_factory.mktemp("pre") / "crowd-run"
    pretrain(pretrain_job(crowd, run), QUIET)
    return run / CHECKPOINT


def trunk(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if key.startswith("backbone.")}


def test_a_run_says_what_it_did(labelled: Path, whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["command"], facts["start"], facts["dataset"]) == ("finetune", "scratch", "labelled")
    assert (facts["steps"], facts["images"], facts["damaged"]) == (6, 36, 0)
    assert facts["pack"] == str(labelled)
    assert facts["loss"] == pytest.approx(facts["identity"] + facts["triplet"])
    assert 1 / 17 < facts["scores"]["map"] < 1
    header = read_header(whole / CHECKPOINT)
    assert header.classes == (1, 2, 3, 4, 5, 6)
    assert header.network.head == neck(6)
    rows = read_metrics(whole)
    assert [("loss" in row, "map" in row, row["step"]) for row in rows] == [(True, False, 6), (False, True, 6)]
    assert {key: rows[1][key] for key in facts["scores"]} == facts["scores"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("steps", [2, 3])
def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, number: int
) -> None:
    job = finetune_job(labelled, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps, number)
        kind = StoppedError if number == signal.SIGTERM else InterruptedRunError
        with pytest.raises(kind, match=f"stopped on request after step {steps} of 6"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == steps
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert [row["step"] for row in read_metrics(job.run)] == [steps, 6, 6]


def test_a_killed_run_goes_on_from_its_last_state(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finetune_job(labelled, tmp_path / "run", "saving.every_epochs=1")

    def die_once_saved() -> None:
        """The state is written beside the loop, which may be two steps ahead."""
        deadline = time.monotonic() + 30
        while not RunFolder(job.run).resume.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        call_at(patch, loop, 5, die_once_saved)
        cv2.setNumThreads(1)  # ends OpenCV's threads, for which a forked process would wait for ever
        process = multiprocessing.get_context("fork").Process(target=finetune, args=(job, QUIET))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    assert read_state(job.run)["step"] == 3
    finetune(job, QUIET)
    one, other = (load_file(run / CHECKPOINT) for run in (job.run, whole))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(labelled: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    finetune(finetune_job(labelled, tmp_path / "run", workers=workers), QUIET)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


@pytest.mark.parametrize(
    "settings", [(), ("losses.identity=0", "losses.margin=0"), ("optim.clip=0.1",), ("bn_groups=1",)]
)
def test_two_processes_are_one(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    # SGD, because Adam forgives a gradient that is twice as long.
    settings = ("optim.name=sgd", "optim.lr=0.01", *settings)
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (finetune_job(labelled, tmp_path / name, *settings) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    assert tensors[0]["head.classifier.weight"].dtype == torch.float64
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key
    facts = [json.loads((job.run / "run.json").read_text()) for job in (one, two)]
    for key in ("loss", "identity", "triplet", "accuracy"):
        assert facts[0][key] == pytest.approx(facts[1][key], rel=1e-5), key


@pytest.fixture
def gaps(tmp_path: Path, market_folder: Path) -> Path:
    """Persons 2, 7, 1501 (one image) and junk to train on, 3 and 5 to test."""
    for seed, name in enumerate(("1501_c1s1_000051_01", "-1_c1s1_000051_02", "-1_c2s1_000051_02")):
        (market_folder / "bounding_box_train" / f"{name}.jpg").write_bytes(encode_tiny(70 + seed))
    pack(Market1501Source(market_folder, dataset="gaps"), out=tmp_path / "gaps.h5", progress=QUIET, workers=1)
    return tmp_path / "gaps.h5"


def test_labels_have_no_gaps_and_junk_is_nobody(gaps: Path, tmp_path: Path) -> None:
    made = open_pack(gaps)
    train = pick_rows(finetune_job(gaps, tmp_path / "run").recipe, [made])
    assert train.persons == (2, 7, 1501)
    assert train.label.tolist() == [0] * 4 + [1] * 4 + [2]
    assert np.array_equal(np.array(train.persons)[train.label], made.samples.person[train.rows])
    assert all(made.samples.name[row].startswith("bounding_box_train/") for row in train.rows)


def test_a_person_with_one_image_fills_its_place(gaps: Path, tmp_path: Path) -> None:
    job = finetune_job(gaps, tmp_path / "run", "data.persons=3", "data.images=4", "bn_groups=1")
    label = pick_rows(job.recipe, [open_pack(gaps)]).label
    order = build_order(job.recipe, label, np.zeros(len(label), np.int16))
    for step in range(3):
        batch = label[order.rows(step)]
        assert sorted(batch) == [0] * 4 + [1] * 4 + [2] * 4
    facts = finetune(job, QUIET)
    assert (facts["images"], facts["damaged"]) == (9, 0)
    assert math.isfinite(facts["loss"])
    header = read_header(job.run / CHECKPOINT)
    assert (header.classes, header.network.head) == ((2, 7, 1501), neck(3))
    assert load_file(job.run / CHECKPOINT)["head.classifier.weight"].shape == (3, 32)


def test_a_run_starts_from_the_trunk_of_its_start(
    labelled: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = load_file(backbone)
    job = finetune_job(labelled, tmp_path / "run", start=backbone)
    torch.manual_seed(0)
    network = build_started(job, 6, Progress())
    count, left = len(trunk(wanted)), len(wanted) - len(trunk(wanted))
    assert left == 4
    assert (
        capsys.readouterr().err
        == f"start: {count} trunk tensors from {backbone}; {left} of its head not used, new head\n"
    )
    for key, value in trunk(network.state_dict()).items():
        assert torch.equal(value, wanted[key]), key
    # And the loop trains that network: a rate of nearly nothing leaves the weights where they began.
    facts = finetune(finetune_job(labelled, job.run, "optim.lr=1e-30", "optim.name=sgd", start=backbone), QUIET)
    found = load_file(job.run / CHECKPOINT)
    for key, value in trunk(wanted).items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(found[key], value), key
    assert facts["start"] == "crowd-run"
    assert set(facts["parents"]) == {"pack:labelled", "start"}


@pytest.mark.parametrize("setting", ["net.width=8", "net.arch=r50"])
def test_a_start_of_another_shape_is_refused_by_name(
    labelled: Path, backbone: Path, tmp_path: Path, setting: str
) -> None:
    with pytest.raises(UsageError, match="a trunk r18 of width 4; the recipe says") as caught:
        finetune(finetune_job(labelled, tmp_path / "run", setting, start=backbone), QUIET)
    assert str(backbone) in caught.value.message
    assert caught.value.hint == "--arch r18 --set net.width=4"
    assert not (tmp_path / "run").exists(), "refused before anything is written"


def test_the_start_decides_depth_and_width(lupctl: Shell, labelled: Path, backbone: Path) -> None:
    """The default recipe says r50; a named start that is an r18 wins over its text, and a named option over both."""
    ran = lupctl(f"finetune {labelled} --from {backbone} --gpus 0 --set data.persons=3 --dry-run --json")
    assert ran.code == 0, ran.err
    assert ran.json["arch"] == "r18"
    ran = lupctl(f"finetune {labelled} --from {backbone} --arch r50 --set data.persons=3 --gpus 0 --dry-run")
    assert ran.code == 2
    assert "a trunk r18 of width 4; the recipe says r50 of width 4" in ran.err


def test_a_changed_start_is_refused_on_resume(
    labelled: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowd: Path
) -> None:
    start = tmp_path / "mine" / CHECKPOINT
    start.parent.mkdir()
    shutil.copy(backbone, start)
    job = finetune_job(labelled, tmp_path / "run", start=start)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 2)
        with pytest.raises(StoppedError):
            finetune(job, QUIET)
    start.unlink()
    pretrain(pretrain_job(crowd, tmp_path / "mine", "seed=2"), QUIET)
    with pytest.raises(UsageError, match=r"contains a run with inputs\.start = 'sha256:"):
        finetune(job, QUIET)


def test_imagenet_that_cannot_be_fetched_is_missing_data(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*given: object, **more: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    with pytest.raises(DataError, match=r"the ImageNet weights of r18 could not be fetched .*no network") as caught:
        finetune(finetune_job(labelled, tmp_path / "run", "start=imagenet"), QUIET)
    assert "--from scratch" in caught.value.hint
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_one_camera_is_refused_before_training(tmp_path: Path, market_folder: Path) -> None:
    for path in market_folder.rglob("*_c2s1_*.jpg"):
        path.unlink()
    for path in market_folder.rglob("*_c1s1_*.jpg"):
        (path.parent / path.name.replace("000151", "000999")).write_bytes(path.read_bytes())
    pack(Market1501Source(market_folder, dataset="one"), out=tmp_path / "one.h5", progress=QUIET, workers=1)
    job = finetune_job(tmp_path / "one.h5", tmp_path / "run", "data.persons=2", "data.images=2")
    with pytest.raises(DataError, match="0 of 2 queries have a right answer: every image has camera 1") as caught:
        finetune(job, QUIET)
    assert caught.value.exit_code == 3
    assert caught.value.hint.endswith("--set evaluation.same_camera=keep")
    assert not job.run.exists()
    kept = finetune_job(
        tmp_path / "one.h5", tmp_path / "run", "data.persons=2", "data.images=2", "evaluation.same_camera=keep"
    )
    assert 0 < finetune(kept, QUIET)["scores"]["map"] <= 1


@pytest.fixture
def train_only(tmp_path: Path) -> Path:
    plan = SyntheticPlan(train_persons=6, cameras=3, shots=2, height=32, width=16)
    return pack_drawn(plan, tmp_path / "train.h5", dataset="train")


def test_a_pack_without_queries_trains_and_says_so(train_only: Path, tmp_path: Path, lupctl: Shell) -> None:
    options = " ".join(as_options(FINETUNE))
    ran = lupctl(f"finetune {train_only} --recipe bot --from scratch --gpus 0 --workers 0 --out run {options}")
    assert ran.code == 0, ran.err
    assert "train: no queries, so the run will not be evaluated\n" in ran.err, "drawn persons cannot be packed again"
    assert ran.out == "run\n"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["scores"] == {}
    assert len(load_file(tmp_path / "run" / CHECKPOINT)) > 100


def test_a_pack_without_labels_is_refused(crowd: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 labelled training images of 0 persons; expected two or more"):
        finetune(finetune_job(crowd, tmp_path / "run"), QUIET)
    assert not (tmp_path / "run").exists()


def test_scores_during_training(labelled: Path, whole: Path, tmp_path: Path) -> None:
    facts = finetune(finetune_job(labelled, tmp_path / "run", "evaluation.every_epochs=1"), QUIET)
    rows = [row for row in read_metrics(tmp_path / "run") if "map" in row]
    assert [(row["step"], row["epoch"]) for row in rows] == [(3, 0), (6, 1)]
    assert {key: rows[1][key] for key in facts["scores"]} == facts["scores"]
    one, other = (load_file(run / CHECKPOINT) for run in (tmp_path / "run", whole))
    assert all(torch.equal(value, other[key]) for key, value in one.items()), "looking changes nothing"


def test_it_learns_its_persons(labelled: Path, tmp_path: Path) -> None:
    settings = ("schedule.epochs=30", "schedule.milestones=[25]", "augment.erase=0", "augment.pad=0", "optim.lr=1e-2")
    facts = finetune(finetune_job(labelled, tmp_path / "run", *settings), QUIET)
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert rows[0]["accuracy"] < 0.7
    assert facts["accuracy"] > 0.9, "six persons it saw ninety times"
    assert facts["identity"] < 0.6 * rows[0]["identity"]


def test_a_plan_counts(labelled: Path, tmp_path: Path) -> None:
    plan = plan_finetuning(finetune_job(labelled, tmp_path / "run", processes=2))
    assert (plan.images, plan.persons, plan.steps_per_epoch, plan.steps) == (36, 6, 3, 6)
    assert (plan.batch_per_device, plan.queries) == (6, 17)
    assert plan.memory_bytes > 4 * 170_000


@pytest.mark.parametrize(
    ("settings", "processes", "message"),
    [
        (("data.persons=7", "bn_groups=1"), 1, "data.persons = 7 persons per batch, but the training set has 6"),
        ((), 5, "data.persons x data.images = 4 x 3 is a batch of 12, which does not divide among 5"),
        ((), 3, "bn_groups = 2 does not divide among 3 devices"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    labelled: Path, tmp_path: Path, settings: tuple[str, ...], processes: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(finetune_job(labelled, tmp_path / "run", *settings, processes=processes), QUIET)
    assert not (tmp_path / "run").exists()


def test_force_starts_over(labelled: Path, whole: Path, tmp_path: Path) -> None:
    job: FinetuneJob = finetune_job(labelled, tmp_path / "run", "seed=2")
    finetune(job, QUIET)
    computed = [
        job.run / name
        for name in (
            "labelled.features.h5",
            "labelled.features.h5.shard-1-of-2",
            "checkpoint.onnx",
            "report.json",
            "report.html",
        )
    ]
    for path in computed:
        path.write_text("of the old network")
    again = finetune_job(labelled, job.run)
    with pytest.raises(UsageError, match=r"recipe\.seed = 2, but now it is 1"):
        finetune(again, QUIET)
    finetune(replace(again, force=True), QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert not any(path.exists() for path in computed)
