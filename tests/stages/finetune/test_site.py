"""Scores on the tracklets of a site, before training on its clusters and after; and sites without tracklets."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.site.distances import measure_distances
from lupctl.core.ranking.site.gather import gather_site
from lupctl.core.ranking.site.scores import score_site
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.setup import set_up
from lupctl.core.stages.finetune.unlabelled.finding import dump_training_set
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from tests.tools.tiny.sites import write_site
from tests.tools.tiny.training import finetune_job, run_forked, signal_at

QUIET = Progress(quiet=True)
CLUSTERS = (
    "data.persons=2", "data.order=cameras", "schedule.epochs=2", "clusters.steps=2",
    "clusters.least=2", "clusters.k1=4", "clusters.k2=2", "clusters.eps=0.6",
)  # fmt: skip


def site_job(pack: Path, run: Path, *, processes: int = 1) -> FinetuneJob:
    return finetune_job(pack, run, *CLUSTERS, shipped="small-usl", processes=processes)


def site_rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run) if "site_auc" in row]


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with five tracklets. Shared: copy it before changing it."""
    return write_site(tmp_path_factory.mktemp("site") / "hall.h5")


@pytest.fixture(scope="module")
def whole(hall: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(site_job(hall, run), QUIET)
    return run


def test_scores_are_those_of_the_network_before_and_after(hall: Path, whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())["site"]
    job = site_job(hall, whole)
    setup, pack = set_up(job), open_pack(hall)
    pairs = gather_site([pack], np.arange(len(pack)), pack.samples.camera).pairs
    assert pairs is not None
    assert (pairs.num_tracklets, pairs.together) == (5, 8)
    torch.manual_seed(job.recipe.seed)
    network, scores = build_started(job, 0, QUIET), []
    for _ in range(2):
        features = dump_training_set(network, job.recipe, setup)[0]
        scores.append(score_site(measure_distances(features.numpy(), pairs, device=torch.device("cpu"))))
        network.load_state_dict(load_file(whole / "checkpoint.safetensors"))
    for when, found in zip(("before", "after"), scores, strict=True):
        assert facts[when]["scores"] == pytest.approx(found.scores, abs=1e-4)
        assert facts[when]["ci95"].keys() == found.ci95.keys()
    for name, rise in facts["rise"]["scores"].items():
        assert rise == pytest.approx(facts["after"]["scores"][name] - facts["before"]["scores"][name])
    assert [(row["step"], row["epoch"]) for row in site_rows(whole)] == [(1, 0), (4, 1)]
    assert [row["site_auc"] for row in site_rows(whole)] == [
        facts[when]["scores"]["auc"] for when in ("before", "after")
    ]
    assert "site_across" not in site_rows(whole)[0], "there is one camera"


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_that_was_stopped_still_knows_what_it_was_before(
    hall: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    job = site_job(hall, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps)
        with pytest.raises(StoppedError):
            finetune(job, QUIET)
    finetune(job, QUIET)
    facts = [json.loads((run / "run.json").read_text())["site"] for run in (job.run, whole)]
    assert facts[0] == facts[1]
    assert site_rows(job.run) == site_rows(whole)


def test_two_processes_write_one_row_each_time(hall: Path, tmp_path: Path) -> None:
    job = site_job(hall, tmp_path / "run", processes=2)
    job.run.mkdir()
    assert run_forked(loop.train_job, job, processes=2) == [0, 0]
    assert [row["step"] for row in site_rows(job.run)] == [1, 4]


def test_an_image_that_cannot_be_read_is_in_no_pair(hall: Path, tmp_path: Path) -> None:
    pack = tmp_path / "hall.h5"
    pack.write_bytes(hall.read_bytes())
    with h5py.File(pack, "r+") as file:
        begin, end = file["images/offsets"][:2]
        file["images/bytes"][begin:end] = 0
    facts = finetune(site_job(pack, tmp_path / "run"), QUIET)
    assert facts["damaged"] == 1
    assert facts["site"]["before"]["scores"].keys() == facts["site"]["after"]["scores"].keys()


@pytest.mark.parametrize(
    ("persons", "is_linked", "reason"),
    [
        ((1, 2, 3), False, "as their crops are not linked into tracklets; lupctl data build NAME --videos DIR"),
        ((1, 5), True, "as of 2 tracklets no two were seen in one frame, so nobody is known to be somebody else"),
    ],
)
def test_a_site_that_says_nothing_is_trained_on_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], persons: tuple[int, ...], is_linked: bool, reason: str
) -> None:
    pack = write_site(tmp_path / "hall.h5", is_linked=is_linked, persons=persons)
    facts = finetune(site_job(pack, tmp_path / "run"), QUIET)
    assert facts["steps"] == 4
    assert "site" not in facts
    assert site_rows(tmp_path / "run") == []
    assert f"site: nothing to expect is known before training, {reason}" in capsys.readouterr().err


def test_images_from_no_video(crowd: Path) -> None:
    pack = open_pack(crowd)
    site = gather_site([pack], np.arange(len(pack)), pack.samples.camera)
    assert (site.pairs, site.why_not) == (None, "the images are from no videos")


def test_tracklets_of_two_packs_are_apart(hall: Path, tmp_path: Path) -> None:
    other = write_site(tmp_path / "hall2.h5", persons=(1, 2))
    packs = [open_pack(hall), open_pack(other)]
    count = sum(map(len, packs))
    camera = np.repeat(np.array([1, 2], np.int16), [len(packs[0]), len(packs[1])])
    rows = np.random.default_rng(0).permutation(count)
    pairs = gather_site(packs, rows, camera[rows]).pairs
    assert pairs is not None
    assert (pairs.num_tracklets, pairs.together) == (7, 9), "numbers and videos of two packs have nothing in common"
    assert sorted(pairs.camera.tolist()) == [1] * 5 + [2] * 2
    person = np.concatenate([pack.samples.person for pack in packs])[rows]
    assert all(len(set(person[pairs.rows[pairs.tracklet == one]].tolist())) == 1 for one in range(7))
