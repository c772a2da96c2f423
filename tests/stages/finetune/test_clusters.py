"""Fine-tuning on clusters: no label is looked at, runs continue to the bit, and what cannot be clustered is refused."""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError, StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import read_checkpoint, write_checkpoint
from lupctl.core.formats.weights.header import read_header
from lupctl.core.ranking.retrieval import extract
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.job import FinetuneJob, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.unlabelled import clusters as labels
from lupctl.core.stages.finetune.unlabelled import finding
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.losses.cluster_memory import cluster_directions
from tests.tools.drawn_packs import pack_drawn
from tests.tools.networks import neck
from tests.tools.tiny.training import compute_in_double, finetune_job, name_it, read_state, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT, PAGE = "checkpoint.safetensors", "clusters.html"
# Six steps in two epochs, on clusters of two or more.
CLUSTERS = (
    "data.persons=2", "data.order=cameras", "schedule.epochs=2", "clusters.steps=3",
    "clusters.least=2", "clusters.k1=4", "clusters.k2=2", "clusters.eps=0.6",
)  # fmt: skip


def cluster_job(pack: Path, run: Path, *settings: str, start: Path | None = None, processes: int = 1) -> FinetuneJob:
    return finetune_job(pack, run, *CLUSTERS, *settings, shipped="small-usl", start=start, processes=processes)


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(cluster_job(labelled, run), QUIET)
    return run


def test_a_run_says_what_it_did(whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["steps"], facts["images"], facts["persons"], facts["labels"]) == (6, 36, 0, "clusters")
    assert 1 / 17 < facts["scores"]["map"] < 1
    header = read_header(whole / CHECKPOINT)
    assert header.classes == ()
    assert header.network.head == neck(0)
    found = [row for row in read_metrics(whole) if "clusters" in row]
    assert [(row["step"], row["epoch"]) for row in found] == [(1, 0), (4, 1)]
    assert all(row["clusters"] >= 2 and 0 <= row["noise"] < 1 and 0 < row["purity"] <= 1 for row in found)
    assert ["stability" in row for row in found] == [False, True]
    assert facts["page"] == PAGE
    text = (whole / PAGE).read_text()
    assert re.search(rf"<td>{found[-1]['clusters']}</td>.*<td>{100 * found[-1]['purity']:.1f}</td>", text)
    assert "cannot be scored" not in text


def test_no_label_is_looked_at(labelled: Path, whole: Path, tmp_path: Path) -> None:
    pack = tmp_path / "labelled.h5"
    pack.write_bytes(labelled.read_bytes())
    samples = open_pack(labelled).samples
    is_train = np.flatnonzero(samples.role == ROLE_CODES["train"])
    with h5py.File(pack, "r+") as file:
        person = file["samples/person"][:]
        person[is_train] = np.random.default_rng(0).permutation(person[is_train])
        file["samples/person"][:] = person
    finetune(cluster_job(pack, tmp_path / "run"), QUIET)
    first, second = (load_file(run / CHECKPOINT) for run in (whole, tmp_path / "run"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert [row["purity"] for row in read_metrics(tmp_path / "run") if "purity" in row] != [
        row["purity"] for row in read_metrics(whole) if "purity" in row
    ]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    job = cluster_job(labelled, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps)
        with pytest.raises(StoppedError, match=f"stopped on request after step {steps} of 6"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == steps
    assert f"clusters of epoch {1 + (steps - 1) // 3} of 2" in (job.run / PAGE).read_text()
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert (job.run / PAGE).read_bytes() == (whole / PAGE).read_bytes()
    strip = ("images_per_s", "data_wait", "loss", "accuracy")
    kept = [[{k: v for k, v in row.items() if k not in strip} for row in read_metrics(run)] for run in (job.run, whole)]
    assert [row for row in kept[0] if "clusters" in row] == [row for row in kept[1] if "clusters" in row]


def test_killed_between_features_and_clusters(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cluster_job(labelled, tmp_path / "run", "saving.every_epochs=1")
    seen: list[int] = []

    def find(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise MemoryError("killed")
        return finding.find(*given)

    with monkeypatch.context() as patch:
        patch.setattr(labels, "find", find)
        with pytest.raises(MemoryError, match="killed"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == 3
    finetune(job, QUIET)
    first, second = (load_file(run / CHECKPOINT) for run in (whole, job.run))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_killed_in_an_epoch_whose_clusters_are_logged(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cluster_job(labelled, tmp_path / "run", "saving.every_epochs=1")
    seen: list[int] = []

    def take(self: labels.ClusterLabels) -> Any:
        seen.append(1)
        if len(seen) == 5:
            raise MemoryError("killed")
        return real(self)

    real = labels.ClusterLabels.take
    with monkeypatch.context() as patch:
        patch.setattr(labels.ClusterLabels, "take", take)
        with pytest.raises(MemoryError, match="killed"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == 3
    finetune(job, QUIET)
    rows = [[row for row in read_metrics(run) if "clusters" in row] for run in (whole, job.run)]
    assert rows[1] == rows[0]


def test_two_processes_are_one(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_float = torch.Tensor.float

    def find_in_single(features: torch.Tensor, *given: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", to_float)
            return finding.find(features.to(torch.float32), *given)

    def directions_in_double(*given: Any, **more: Any) -> torch.Tensor:
        return cluster_directions(*given, **more).double()

    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(extract, "make_view", vars(loop)["make_view"])
    monkeypatch.setattr(labels, "find", find_in_single)
    monkeypatch.setattr(labels, "cluster_directions", directions_in_double)
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (cluster_job(labelled, tmp_path / name, "bn_groups=2") for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][key], value, rtol=1e-7, atol=1e-7, msg=partial(name_it, key))
    rows = [[row for row in read_metrics(job.run) if "clusters" in row] for job in (one, two)]
    assert rows[0] == rows[1]


def test_a_pack_without_any_labels(crowd: Path, tmp_path: Path) -> None:
    job = cluster_job(crowd, tmp_path / "run")
    assert (plan_finetuning(job).images, plan_finetuning(job).persons) == (36, 0)
    facts = finetune(job, QUIET)
    assert facts["scores"] == {}
    text = (job.run / PAGE).read_text()
    assert "<b>The network cannot be scored:</b> crowd has no queries." in text
    assert "purity" not in text
    assert not any("purity" in row for row in read_metrics(job.run))


def test_of_a_fine_tuned_network_the_trunk_is_the_start(labelled: Path, tmp_path: Path) -> None:
    finetune(finetune_job(labelled, tmp_path / "persons"), QUIET)
    start = tmp_path / "persons" / CHECKPOINT
    job = cluster_job(labelled, tmp_path / "run", start=start)
    torch.manual_seed(0)
    found, given = build_started(job, 0, QUIET).state_dict(), load_file(start)
    assert all(torch.equal(found[key], value) for key, value in given.items() if key.startswith("backbone."))
    assert not torch.equal(found["head.neck.running_var"], given["head.neck.running_var"])


def test_a_damaged_image_is_in_no_cluster(crowd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "crowd.h5"
    pack.write_bytes(crowd.read_bytes())
    with h5py.File(pack, "r+") as file:
        begin, end = file["images/offsets"][5:7]
        file["images/bytes"][begin:end] = 0
    job = cluster_job(pack, tmp_path / "run", "saving.every_epochs=1")
    facts = finetune(job, QUIET)
    assert facts["damaged"] == 1
    assert (job.run / PAGE).is_file()
    assert capsys.readouterr().err.count("skipped: ") == 1
    noise = [row["noise"] for row in read_metrics(job.run) if "clusters" in row]
    assert all(abs(share * 35 - round(share * 35)) < 1e-9 for share in noise)


def test_clusters_that_vanish_on_the_way_are_shown(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def find(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise DataError("too few", hint="--set clusters.eps=0.3 finds 9")
        return finding.find(*given)

    job = cluster_job(labelled, tmp_path / "run")
    monkeypatch.setattr(labels, "find", find)
    with pytest.raises(DataError, match=r"^epoch 2: too few; .*clusters\.html shows the clusters until then"):
        finetune(job, QUIET)
    assert "clusters of epoch 1 of 2" in (job.run / PAGE).read_text()


def test_the_best_scores_are_said_to_be_selected_on_the_test_set(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = cluster_job(labelled, tmp_path / "run", "evaluation.every_epochs=1")
    facts = finetune(job, Progress())
    scored = [row for row in read_metrics(job.run) if "map" in row]
    best = max(scored, key=lambda row: float(row["map"]))
    expected = {"epoch": best["epoch"] + 1, "map": best["map"], "rank1": best["rank1"], "of": 2}
    assert facts["best_selected_on_test"] == expected
    assert facts["scores"]["map"] == scored[-1]["map"], "the last network is kept"
    said = f"best of 2 evaluations, selected on the test set: epoch {best['epoch'] + 1}, mAP {best['map']:.4f}"
    assert said in capsys.readouterr().err


def refuse(job: FinetuneJob, message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        finetune(job, QUIET)
    assert hint in caught.value.hint
    assert not job.run.exists()


def test_too_few_clusters_name_an_eps_that_finds_enough(labelled: Path, tmp_path: Path) -> None:
    dense = cluster_job(labelled, tmp_path / "run", "clusters.eps=0.05", "clusters.least=5")
    refuse(dense, r"finds 0 clusters in 36 images, 100%", "eps=0")
    loose = cluster_job(labelled, tmp_path / "run", "clusters.eps=0.99", "clusters.k1=20")
    refuse(loose, r"finds 1 cluster in 36 images", "eps=0")


def test_no_eps_helps(labelled: Path, tmp_path: Path) -> None:
    refuse(cluster_job(labelled, tmp_path / "run", "clusters.least=40"), "finds 0 clusters", "more images")


def test_images_that_look_the_same(tmp_path: Path) -> None:
    plan = SyntheticPlan(unlabelled_persons=4, scenes=1, height=32, width=16)
    pack = pack_drawn(plan, tmp_path / "same.h5", dataset="same")
    count = len(open_pack(pack))

    def same(*given: object, is_start: bool) -> tuple[torch.Tensor, dict[int, str]]:
        return torch.nn.functional.normalize(torch.ones(count, 8), dim=1), {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "dump_training_set", same)
        patch.setattr(finding, "TRIED", ())  # no distance is tried, nor a graph built for it
        refuse(cluster_job(pack, tmp_path / "run"), "nearly the same feature", "--from")


def test_a_start_without_features_is_named(labelled: Path, whole: Path, tmp_path: Path) -> None:
    """Its weights are zero: no rate of learning helps."""
    start = tmp_path / "start" / CHECKPOINT
    start.parent.mkdir()
    found = read_checkpoint(whole / CHECKPOINT)
    write_checkpoint(start, {key: torch.zeros_like(value) for key, value in found.tensors.items()}, found.header)
    refuse(cluster_job(labelled, tmp_path / "run", start=start), "have no direction", "--from")


@pytest.mark.parametrize(
    ("settings", "named", "hint"),
    [
        (("losses.margin=0.1",), "losses", "--recipe small-usl"),
        (("data.subset=ids:0.5",), "data.subset", "leave out --subset"),
        (("labels=persons",), "clusters", "--labels clusters"),
        (("net.head=mgn",), "net.head", "--set net.head=bnneck"),
        (("net.feature=before",), "net.feature", "--set net.feature=after"),
    ],
)
def test_settings_about_labels_are_refused(
    labelled: Path, tmp_path: Path, settings: Sequence[str], named: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")) as caught:
        cluster_job(labelled, tmp_path / "run", *settings)
    assert hint in caught.value.hint
