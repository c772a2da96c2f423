"""`lupctl eval` of a site without labels: thresholds from tracklets, which `find` uses; and what needs queries."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lupctl.core.errors import FormatError
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.reports.model.find import pick_limits
from lupctl.core.ranking.reports.model.site import SiteReport, read_either
from lupctl.core.ranking.site.distances import measure_distances
from lupctl.core.ranking.site.gather import gather_site
from lupctl.core.ranking.site.points import site_points
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.sites import write_site
from tests.tools.tiny.training import finetune_job

QUIET = Progress(quiet=True)
EVAL = "eval fine/hall.features.h5 --device cpu"


@pytest.fixture(scope="module")
def space(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run and its features of a site with tracklets. Shared: copied for each test."""
    space = tmp_path_factory.mktemp("space")
    run = space / "runs/fine"
    finetune(finetune_job(labelled, run), QUIET)
    (space / "packs").mkdir()
    hall = write_site(space / "packs/hall.h5")
    job = DumpJob(run / "checkpoint.safetensors", hall, run / "hall.features.h5", workers=0)
    dump(job, torch.device("cpu"), QUIET)
    return space


@pytest.fixture
def hall(lupctl: Shell, space: Path, tmp_path: Path) -> Path:
    """The site's pack, in a workspace of its own."""
    shutil.copytree(space, tmp_path / "lup")
    return tmp_path / "lup/packs/hall.h5"


def evaluated(lupctl: Shell, options: str = "") -> Any:
    ran = lupctl(f"{EVAL} --json {options}")
    assert ran.code == 0, ran.err
    return ran.json


def test_thresholds_are_those_of_the_pairs(lupctl: Shell, hall: Path) -> None:
    report = evaluated(lupctl, "--threshold 0.05")
    features, pack = read_features(Path("lup/runs/fine/hall.features.h5")), open_pack(hall)
    pairs = gather_site([pack], np.arange(len(pack)), pack.samples.camera).pairs
    assert pairs is not None
    found = measure_distances(features.features, pairs, device=torch.device("cpu"))
    point, strict = site_points(found, [0.05, 0.01])
    assert point is not None
    assert strict is not None
    assert report["schema"] == "lupctl.site/1"
    assert (report["rule"], report["wanted_fpr"]) == ("false positive rate", 0.05)
    assert report["threshold"]["threshold"] == point.point.threshold
    assert report["threshold"]["fpr"] <= 0.05
    low, high = report["threshold"]["threshold_ci95"]
    assert low <= point.point.threshold <= high
    assert report["at_fpr"]["0.01"]["threshold"] == strict.point.threshold
    assert report["at_fpr"]["0.0001"] is None
    counts = report["counts"]
    assert (counts["images"], counts["tracklets"], counts["together"], counts["short"]) == (len(pack), 5, 8, 0)
    assert (sum(report["same_counts"]), sum(report["different_counts"])) == (counts["same"], counts["different"])
    assert len(report["assumes"]) == 3
    assert report["warnings"] == ["5 tracklets are few: the intervals are rough"]


def test_features_in_bf16_are_named(lupctl: Shell, hall: Path) -> None:
    made = lupctl("dump fine hall --precision bf16 --force --out half.features.h5 --device cpu --workers 0")
    assert made.code == 0, made.err
    ran = lupctl("eval half.features.h5 --device cpu")
    assert "warning: the features of hall were computed in bf16: scores differ a little from float32's" in ran.out


def test_it_is_printed_with_what_it_assumes(lupctl: Shell, hall: Path) -> None:
    ran = lupctl(EVAL)
    assert "hall: no queries; from tracklets, without labels" in ran.out
    assert "assumes: each tracklet shows one person" in ran.out
    assert "5 tracklets, 8 pairs of them seen together (0 too short)" in ran.out
    assert "report: lup/runs/fine/report.json" in ran.out
    assert not Path("lup/runs/fine/report.html").exists()
    again = lupctl(f"{EVAL} --threshold 0.01")
    assert again.code == 0, "a report from the same features is replaced"
    assert "false matches 0.01, as asked" in again.out
    plan = lupctl(f"{EVAL} --dry-run --json").json
    assert (plan["schema"], plan["tracklets"], plan["pairs_seen_together"]) == ("lupctl.site-plan/1", 5, 8)


def test_find_uses_the_thresholds_of_a_site(lupctl: Shell, hall: Path) -> None:
    report = evaluated(lupctl, "--threshold 0.05")
    Path("asked.png").write_bytes(encode_tiny(3, ".png"))
    ran = lupctl("find asked.png --in hall --run fine --device cpu --workers 0 --out page.html --json")
    assert ran.code == 0, ran.err
    assert "thresholds: lup/runs/fine/report.json (hall, from tracklets without labels)" in ran.err
    limits = ran.json["limits"]
    assert (limits["from_tracklets"], limits["persons"], limits["dataset"]) == (True, 5, "hall")
    assert limits["other"] == pytest.approx(1 - report["threshold"]["threshold"])
    assert limits["same"] == pytest.approx(1 - report["at_fpr"]["0.01"]["threshold"])
    assert limits["missed"] == pytest.approx(1 - report["threshold"]["tpr"])
    page = Path("page.html").read_text()
    assert "Nobody labelled anybody in hall" in page
    assert "5 tracklets" in page


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--rerank", "--rerank"), ("--aqe 5", "--aqe or --dba"), ("--same-camera keep", "--protocol or --same-camera"),
        ("--min-map 0.5", "--min-map"), ("--min-rank1 0.5", "--min-rank1"), ("--images hall", "--images"),
    ],
)  # fmt: skip
def test_what_needs_queries_is_refused(lupctl: Shell, hall: Path, options: str, named: str) -> None:
    ran = lupctl(f"{EVAL} {options}")
    assert ran.code == 2
    assert f"error: {named} has no meaning without queries, and" in ran.err
    assert not Path("lup/runs/fine/report.json").exists()


def test_a_report_of_something_else_is_not_replaced(lupctl: Shell, hall: Path, labelled: Path) -> None:
    shutil.copy(labelled, "lup/packs/labelled.h5")
    assert lupctl("dump fine labelled --device cpu --workers 0").code == 0
    assert lupctl("eval fine/labelled.features.h5 --no-page --device cpu").code == 0
    before = Path("lup/runs/fine/report.json").read_bytes()
    ran = lupctl(EVAL)
    assert ran.code == 2
    assert "lup/runs/fine/report.json" in ran.err
    assert Path("lup/runs/fine/report.json").read_bytes() == before
    assert lupctl(f"{EVAL} --out site.json").code == 0
    assert lupctl(f"{EVAL} --force").code == 0


def test_crops_that_are_not_linked(lupctl: Shell, hall: Path) -> None:
    write_site(Path("lup/packs/loose.h5"), is_linked=False)
    assert lupctl("dump fine loose --device cpu --workers 0").code == 0
    ran = lupctl("eval fine/loose.features.h5 --device cpu")
    assert ran.code == 3
    assert (
        "there is no query among 72 images, and no pairs without labels either: their crops are not linked" in ran.err
    )
    assert "--track makes a pack with tracklets" in ran.err


def test_images_from_no_video_are_refused_as_before(lupctl: Shell, hall: Path, crowd: Path) -> None:
    shutil.copy(crowd, "lup/packs/crowd.h5")
    assert lupctl("dump fine crowd --device cpu --workers 0").code == 0
    ran = lupctl("eval fine/crowd.features.h5 --device cpu")
    assert ran.code == 3
    assert "there is no query among 36 images (36 unlabelled)" in ran.err


def test_a_damaged_report_is_named(lupctl: Shell, hall: Path) -> None:
    evaluated(lupctl)
    path = Path("lup/runs/fine/report.json")
    report = read_either(path)
    assert isinstance(report, SiteReport)
    assert pick_limits(report, "here") is not None
    assert pick_limits(report.model_copy(update={"threshold": None}), "here") is None
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "draws": "many"}))
    with pytest.raises(FormatError, match=r"not a report of schema lupctl.site/1 \(draws: "):
        read_either(path)
    path.write_text("[")
    with pytest.raises(FormatError, match="not a report"):
        read_either(path)
